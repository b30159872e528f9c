"""`torch.hub` entry points: compressors that turn images into CLIP features.

    import torch

    compressor, transform = torch.hub.load("<this repository>", "clip_compressor_b005")

or, from a clone, `torch.hub.load("path/to/clone", "clip_compressor_b005", source="local")`.

`torch.hub.list` lists the entry points, and `torch.hub.help` describes one of them. All are
generated from the table `lossyless.hub.RELEASED`.
"""

from collections.abc import Callable as _Callable

from lossyless.hub import RELEASED as _RELEASED

# `clip` is OpenAI's: pip install clip-anytorch "setuptools<82". PyPI's `clip` is something else.
# compressai is not listed: our own error explains how to install it; torch.hub's would not.
dependencies = ["torch", "torchvision", "constriction", "clip", "numpy", "tqdm"]

_DOC = """An image compressor with beta = {beta:g}: about {bits:.0f} bits per image.

    compressor, transform = torch.hub.load(..., "{entry}")

    compressor.compress_dataset(dataset, "Z.bin", labels=True)     # PIL images or tensors
    Z, Y = compressor.decompress_dataset("Z.bin", labels=True)     # numpy, for scikit-learn
    z_hat = compressor(torch.stack([transform(image) for image in images]))
    bits = compressor.get_rate(torch.stack([transform(image) for image in images]))  # mean length

Z holds CLIP ViT-B/32 features [N, 512], on which you can train any predictor. See
`lossyless.hub.ClipCompressor` for all methods.

Parameters
----------
device : where CLIP runs; by default a CUDA device if there is one, else the CPU.
is_jit : has no effect; accepted for compatibility with the official code.
clip_path : CLIP ViT-B/32 checkpoint; by default OpenAI's, downloaded (340 MB) on first use.
pretrained_path : bottleneck weights; by default the released ones, downloaded (136 kB,
    checksum verified) on first use.
rdo : 0.1 saves bits at the cost of slightly larger errors; files can be read with any value.

Returns
-------
compressor : lossyless.hub.ClipCompressor
transform : maps a PIL image to the tensor [3, 224, 224] that the compressor expects

Raises
------
WeightsError
    Weights are invalid, or cannot be downloaded. The message then says which file to place where.
"""


def _make_entry(model: str) -> _Callable:
    def entry(device=None, is_jit=False, clip_path=None, pretrained_path=None, rdo=0.0):
        from lossyless.hub import clip_compressor  # takes seconds to import

        return clip_compressor(
            model,
            device=device,
            clip_path=clip_path,
            pretrained_path=pretrained_path,
            is_jit=is_jit,
            rdo=rdo,
        )

    entry.__name__ = entry.__qualname__ = f"clip_compressor_{model}"
    released = _RELEASED[model]
    entry.__doc__ = _DOC.format(beta=released.beta, bits=released.n_bits, entry=entry.__name__)
    return entry


globals().update({f"clip_compressor_{model}": _make_entry(model) for model in _RELEASED})
