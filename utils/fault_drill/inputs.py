"""Malformed images, feature arrays and labels: a valid result, or an error that says why not."""

import io
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from lossyless import ArrayCompressor
from lossyless.backbones.clip import import_clip
from lossyless.hub import SourceError, clip_compressor
from lossyless.hub.features import FeatureCompressor
from lossyless.hub.images import ImageFolder
from lossyless.rates import HFactorized
from utils.data.examples import ImageFiles, Streamed
from utils.data.module import DataError
from utils.fault_drill.damages import DAMAGES
from utils.fault_drill.trials import (
    SURVIVED,
    Row,
    Trial,
    attempt_all,
    command,
    judge,
    judge_command,
    summarise,
)

SIDE, Z_DIM, N = 32, 8, 300
MAX_MEMORY = 2048.0  # MiB; 100 megapixels in RGB take 286
SUFFIXES = ("png", "jpg", "webp", "tiff", "bmp", "ppm")
HUGE = {"100 megapixels": 10_000, "400 megapixels": 20_000}  # side


def draw_image(kind: str, rng: random.Random) -> tuple[bytes, str]:
    """Content and suffix of an image file."""
    suffix = rng.choice(
        {"CMYK": ["jpg", "tiff"], "animated": ["png", "webp", "gif"]}.get(kind, SUFFIXES)
    )
    size = {"1x1": (1, 1), "1xN": (1, rng.randrange(1, 5000))}.get(kind, (50, 40))
    image, options = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1])), {}
    if kind == "16 or 32 bits":
        dtype, suffix = rng.choice([("u2", "tiff"), ("u2", "png"), ("f4", "tiff"), ("i4", "tiff")])
        image = Image.fromarray((300.0 * np.asarray(image)[..., 0]).astype(dtype))
    elif kind == "CMYK":
        image = image.convert("CMYK")
        options = {"icc_profile": rng.choice([b"", b"none", rng.randbytes(500)])}
    elif kind == "palette":
        image, suffix = image.convert("P"), "png"
        options = {"transparency": rng.choice([0, 255, rng.randbytes(7)])}
    elif kind == "animated":
        options = {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    content = io.BytesIO()
    image.save(content, {"jpg": "jpeg"}.get(suffix, suffix), **options)
    data = content.getvalue()
    if kind in DAMAGES:
        data = DAMAGES[kind](data, rng, data, data)
    elif kind == "no image":
        data = rng.randbytes(rng.randrange(100))
    return data, rng.choice(SUFFIXES) if kind == "wrong extension" else suffix


KINDS = (
    *("truncation", "bit flips", "splices", "zeroed page", "no image", "wrong extension"),
    *("1x1", "1xN", "16 or 32 bits", "CMYK", "palette", "animated"),
)


def run_images(n_images: int, seed: int) -> Iterator[Row]:
    """`n_images` files, read one by one by the hub and by data sets, and by a command."""
    n_good = 0
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "images"), Path(name, "z.bin")
        clip, rate = Path(name, "clip.pt"), Path(name, "rate.pt")
        torch.manual_seed(0)
        tiny = import_clip().model.CLIP(512, SIDE, 1, 64, 8, 4, 8, 64, 1, 1)
        torch.save(tiny.state_dict(), clip)
        torch.save(HFactorized(512).state_dict(), rate)
        compressor, _ = clip_compressor(device="cpu", clip_path=clip, pretrained_path=rate)

        def read(reader: str, file: Path) -> bool:
            warnings.simplefilter("ignore")
            if reader == "hub":
                images = ImageFolder(file.parent)
                images.samples = [(str(file), None)]
                serial = {"num_workers": 0}
                compressor.compress_dataset(images, out, is_info=False, kwargs_dataloader=serial)
                return compressor.decompress_dataset(out, is_info=False).shape == (1, 512)
            first, images = torch.tensor([0]), ImageFiles.of([(str(file), 0)])
            streamed = Streamed(images, first, v2.Resize((SIDE, SIDE)), (3, SIDE, SIDE), 0)
            ((x, _),) = streamed.read([first], torch.device("cpu"))
            return x.shape == (1, 3, SIDE, SIDE)

        def trial(reader: str, file: Path) -> Trial:
            return judge(partial(read, reader, file), (SourceError, DataError), str(file))

        for kind in (*KINDS, *HUGE):
            files = []
            (folder / kind).mkdir(parents=True)
            for number in range(1 if kind in HUGE else -(-n_images // len(KINDS))):
                if kind in HUGE:
                    files.append(folder / kind / "huge.png")
                    Image.new("1", (HUGE[kind], HUGE[kind])).save(files[-1])
                    continue
                data, suffix = draw_image(kind, random.Random(f"{seed} {kind} {number}"))
                files.append(folder / kind / f"{number}.{suffix}")
                files[-1].write_bytes(data)
            for reader in ("hub", "data set"):
                trials = attempt_all(partial(trial, reader), files, max_memory=MAX_MEMORY)
                n_good += sum(t.verdict == SURVIVED for t in trials) * (reader == "hub")
                yield summarise(kind, reader, trials, seed)
        line = [
            "-m",
            "lossyless.hub",
            "compress",
            folder,
            out,
            "--clip",
            clip,
            "--pretrained",
            rate,
        ]
        stopping, skipping = command(*line), command(*line, "--on-error", "skip")
        is_partial = skipping.returncode == 3 and f"{n_good} img" in skipping.stdout
        skipping.returncode = 0 if is_partial else skipping.returncode or 4
        trials = [
            judge_command(stopping, lambda: False, str(folder)),
            judge_command(skipping, lambda: True),
        ]
        yield summarise("all kinds", "hub compress", trials, seed)


Z = np.random.default_rng(0).normal(size=(N, Z_DIM)).astype(np.float32)
ARRAYS: dict[str, object] = {
    "NaN": np.where(Z[3, 3] == Z, np.nan, Z),
    "infinite": np.where(Z[3, 3] == Z, np.inf, Z),
    "huge": np.where(Z[3, 3] == Z, 1e300, Z.astype(np.float64)),
    "objects": np.array([[object()] * Z_DIM] * N),
    "text": Z.astype(str),
    "complex": Z + 1j,
    "no rows": Z[:0],
    "no columns": Z[:, :0],
    "1-D": Z[0],
    "3-D": Z[None],
    "other width": Z[:, 1:],
    "ragged": [[1.0], [1.0, 2.0]],
    "None": None,
    "dict": {"a": Z},
    "structured": np.zeros(N, [("a", "f4"), ("b", "f4")]),
    "dates": np.zeros((N, Z_DIM), "M8[s]"),
    "masked": np.ma.masked_greater(Z, 1),
    "big-endian": Z.astype(">f4"),
    "reversed": Z[::-1, ::-1],
    "float16": Z.astype("f2"),
    "integers": (100 * Z).astype("i8"),
    "boolean": Z > 0,
    "constant": 0 * Z,
    "one row": Z[:1],
    "list": Z.tolist(),
}
LABELS: dict[str, Callable[[Path], object]] = {
    "pickled": lambda file: np.save(file, np.array([{}] * N, object), allow_pickle=True),
    "no array": lambda file: file.write_bytes(b"\x93NUMPY\1\0"),
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("1,2,3", encoding="utf-8"),
    "too few": lambda file: np.save(file, np.arange(N - 1)),
    "floats": lambda file: np.save(file, np.full(N, np.nan)),
    "0-D": lambda file: np.save(file, np.array(3)),
    "archive": lambda file: file.write_bytes(b"PK\3\4 half an archive"),
}


def run_arrays(seed: int) -> list[Row]:
    """Malformed arrays, given to everything that takes features; and label files."""
    fitted, rate = ArrayCompressor().fit(Z), HFactorized(Z_DIM)
    rate.update()
    hub = FeatureCompressor(rate.eval())
    with tempfile.TemporaryDirectory() as name:
        out, labels = Path(name, "z.bin"), Path(name, "labels.npy")

        def compress(what: str) -> bool:
            array = ARRAYS[what]
            hub.compress_features(array, out, is_info=False, n_workers=1)
            return bool(np.isfinite(hub.decompress_dataset(out, is_info=False)).all())

        def fit(what: str) -> bool:
            found = ArrayCompressor().fit(ARRAYS[what]).transform(ARRAYS[what])
            return bool(np.isfinite(found).all())

        def code(what: str) -> bool:
            Z_hat = fitted.decompress(fitted.compress(ARRAYS[what]))
            return np.array_equal(Z_hat, fitted.transform(ARRAYS[what]))

        def label(what: str) -> bool:
            LABELS[what](labels)
            hub.compress_features(Z, out, is_info=False, format="official")
            return hub.decompress_dataset(out, labels, is_info=False, n_workers=1) is None

        def trial(function: Callable[[str], bool], what: str) -> Trial:
            errors, name = (ValueError, TypeError), ""  # as of scikit-learn
            if function is label:
                errors, name = (SourceError,), labels.name
            return judge(partial(function, what), errors, name)

        functions = {
            "ArrayCompressor.fit": (fit, ARRAYS),
            "ArrayCompressor.compress": (code, ARRAYS),
            "compress_features": (compress, ARRAYS),
            "label files": (label, LABELS),
        }
        return [
            summarise("malformed", target, attempt_all(partial(trial, function), [*cases]), seed)
            for target, (function, cases) in functions.items()
        ]


def run(n_images: int, seed: int) -> Iterator[Row]:
    yield from run_images(n_images, seed)
    yield from run_arrays(seed)
