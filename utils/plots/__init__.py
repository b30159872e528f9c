def draw(name, compressor, data):
    raise NotImplementedError
