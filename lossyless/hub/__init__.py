"""The released compressors: images or CLIP features to small files, and back to features.

    from lossyless.hub import clip_compressor

    compressor, transform = clip_compressor("b005")
    compressor.compress_dataset("photos/", "photos.bin")   # or a data set in torchvision's style
    Z = compressor.decompress_dataset("photos.bin")        # float32 [N, 512]

The same through `torch.hub.load` (see `hubconf.py`), and from the shell: `python -m lossyless.hub`.

    released         the table of released bottlenecks
    bottlenecks      a bottleneck from its weights
    loading          compressors from weights
    features         FeatureCompressor: features <-> files, without CLIP
    compressor       ClipCompressor: images -> features <-> files
    folders          image files below a folder; shards
    sources          images as CLIP takes them, of any data set
    pixels           images of 16 bits a pixel
    labels           labels beside compressed files
    damage           what is missing of a damaged file
    merging          several files to one, with their labels
    arguments        of the command line
    files            files that results are written to
    report           what is printed
    official         streams of the paper's code
    official_names   what code written for the official hub uses
    official_format  files of the paper's code; `official_file` decodes such a file
    errors           SourceError

Names are imported when they are first used: what only looks at files need not wait for CLIP.
"""

from importlib import import_module

_WHERE = {
    "ClipCompressor": "compressor",
    "FeatureCompressor": "features",
    "SourceError": "errors",
    "clip_compressor": "loading",
    "feature_compressor": "loading",
}
__all__ = list(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
