"""Malformed images and arrays: each must give a valid result, or an error that explains why not."""

import contextlib
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
from lossyless.files import FeatureFile
from lossyless.hub import __main__ as cli
from lossyless.hub.features import FeatureCompressor
from lossyless.hub.weights import load_bottleneck
from lossyless.rates import HFactorized
from utils.data.examples import ImageFiles, Streamed
from utils.data.module import DataError
from utils.fault_drill.corruption import DAMAGES
from utils.fault_drill.trials import UNEXPLAINED, Outcome, Trials, judge, judge_status

SIDE, Z_DIM, N = 32, 8, 300
MAX_MEMORY = 2048.0  # MiB; 100 megapixels in RGB take 286
SUFFIXES = ("png", "jpg", "webp", "tiff", "bmp", "ppm")
HUGE = {"100 megapixels": 10_000, "400 megapixels": 20_000}  # sides in pixels


def draw_image(kind: str, rng: random.Random) -> tuple[bytes, str]:
    """Draw the content and suffix of an image file."""
    content = io.BytesIO()
    if kind in HUGE:
        Image.new("1", (HUGE[kind], HUGE[kind])).save(content, "png")
        return content.getvalue(), "png"
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
    image.save(content, {"jpg": "jpeg"}.get(suffix, suffix), **options)
    data = content.getvalue()
    if kind in DAMAGES:
        data = DAMAGES[kind](data, rng, data, data)
    elif kind == "no image":
        data = rng.randbytes(rng.randrange(100))
    return data, rng.choice(SUFFIXES) if kind == "wrong extension" else suffix


KINDS = (
    *("truncation", "bit flips", "no image", "wrong extension"),
    *("1x1", "1xN", "16 or 32 bits", "CMYK", "palette", "animated"),
)


def images(n_images: int, seed: int) -> Iterator[Trials]:
    """Yield trials in which the hub's command and a data set each read `n_images` files."""
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "images"), Path(name, "z.bin")
        clip, weights = Path(name, "clip.pt"), Path(name, "rate.pt")
        torch.manual_seed(0)
        tiny = import_clip().model.CLIP(512, SIDE, 1, 64, 8, 4, 8, 64, 1, 1)
        torch.save(tiny.state_dict(), clip)
        torch.save(HFactorized(512).state_dict(), weights)
        rate = load_bottleneck(weights)
        options = ["--clip", str(clip), "--pretrained", str(weights), "--workers", "0"]

        def compress(file: Path) -> Outcome:
            out.unlink(missing_ok=True)
            said = io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                status = cli.main(["compress", str(file.parent), str(out), *options])
            if status and (out.exists() or said.getvalue().count("\n") != 1):
                return Outcome(UNEXPLAINED, said.getvalue())
            return judge_status(status, said.getvalue(), is_written, str(file))

        def is_written() -> bool:
            with FeatureFile(out, rate) as written:
                return bool(written.read(n_workers=1).isfinite().all()) and len(written) == 1

        def load(file: Path) -> Outcome:
            warnings.simplefilter("ignore")
            return judge(partial(has_loaded, file), (DataError,), str(file))

        def has_loaded(file: Path) -> bool:
            first, files = torch.tensor([0]), ImageFiles.of([(str(file), 0)])
            streamed = Streamed(files, first, v2.Resize((SIDE, SIDE)), (3, SIDE, SIDE), 0)
            ((x, _),) = streamed.read([first], torch.device("cpu"))
            return x.shape == (1, 3, SIDE, SIDE)

        for kind in (*KINDS, *HUGE):
            files = []
            for number in range(1 if kind in HUGE else -(-n_images // len(KINDS))):
                data, suffix = draw_image(kind, random.Random(f"{seed} {kind} {number}"))
                files.append(folder / kind / str(number) / f"image.{suffix}")
                files[-1].parent.mkdir(parents=True)
                files[-1].write_bytes(data)
            yield Trials(kind, "hub", compress, files, MAX_MEMORY)
            yield Trials(kind, "data set", load, files, MAX_MEMORY)


Z = np.random.default_rng(0).normal(size=(N, Z_DIM)).astype(np.float32)
ARRAYS: dict[str, object] = {
    "NaN": np.where(Z[3, 3] == Z, np.nan, Z),
    "infinite": np.where(Z[3, 3] == Z, np.inf, Z),
    "huge": np.where(Z[3, 3] == Z, 1e300, Z.astype(np.float64)),
    "objects": np.array([[object()] * Z_DIM] * N),
    "text": Z.astype(str),
    "complex": Z + 1j,
    "no rows": Z[:0],
    "1-D": Z[0],
    "3-D": Z[None],
    "other width": Z[:, 1:],
    "ragged": [[1.0], [1.0, 2.0]],
    "None": None,
    "structured": np.zeros(N, [("a", "f4"), ("b", "f4")]),
    "float16": Z.astype("f2"),
    "integers": (100 * Z).astype("i8"),
    "constant": 0 * Z,
    "one row": Z[:1],
    "list": Z.tolist(),
}


def arrays(seed: int) -> Iterator[Trials]:
    """Yield trials that pass unusual or malformed arrays to each method that takes features."""
    torch.manual_seed(seed)
    fitted, rate = ArrayCompressor().fit(Z), HFactorized(Z_DIM)
    rate.update()
    hub = FeatureCompressor(rate.eval())
    with tempfile.TemporaryDirectory() as name:
        out = Path(name, "z.bin")

        def fit(what: str) -> bool:
            found = ArrayCompressor().fit(ARRAYS[what]).transform(ARRAYS[what])
            return bool(np.isfinite(found).all())

        def code(what: str) -> bool:
            Z_hat = fitted.decompress(fitted.compress(ARRAYS[what]))
            return np.array_equal(Z_hat, fitted.transform(ARRAYS[what]))

        def compress(what: str) -> bool:
            hub.compress_features(ARRAYS[what], out, is_info=False, n_workers=1)
            return bool(np.isfinite(hub.decompress_dataset(out, is_info=False)).all())

        def run(function: Callable[[str], bool], what: str) -> Outcome:
            return judge(lambda: function(what), (ValueError, TypeError), "")  # as in scikit-learn

        for target, function in (
            ("ArrayCompressor.fit", fit),
            ("ArrayCompressor.compress", code),
            ("compress_features", compress),
        ):
            yield Trials("malformed", target, partial(run, function), [*ARRAYS])


def trials(n_images: int, seed: int) -> Iterator[Trials]:
    yield from images(n_images, seed)
    yield from arrays(seed)
