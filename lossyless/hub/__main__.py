"""Command line of the hub: `python -m lossyless.hub --help`."""

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lossyless.atomic import file_to_replace
from lossyless.hub import RELEASED, SourceError
from lossyless.printing import forgive_output

DESCRIPTION = """\
Compress images to CLIP features, at about 1400 bits per image, for training classifiers.

  python -m lossyless.hub compress photos/ photos.bin --labels   # folders in photos/ are classes
  python -m lossyless.hub info photos.bin                        # --names lists the images
  python -m lossyless.hub decompress photos.bin Z.npy            # float32 [N, 512]; without CLIP
  python -m lossyless.hub merge part1.bin part2.bin --out all.bin

Images are decoded as viewers display them: EXIF orientation is applied, transparency becomes white.
Weights are downloaded on first use; without a network, pass local files (--clip, --pretrained).
"""
EPILOG = """\
Exit status: 0 done, 1 files or weights cannot be used (see the message), 2 invalid arguments,
3 done, but unreadable images (--on-error skip) or damaged parts (--on-damage skip) were skipped,
130 interrupted.
"""
DONE, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130
FILE = {"metavar": "FILE", "type": Path}
MAX_LISTED = 8


class UsageError(Exception):
    """Invalid arguments that argparse accepts."""


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    forgive_output()
    args = make_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        return _fail(error, USAGE)
    except ModuleNotFoundError as error:
        if "pip install" in str(error):
            return _fail(error)
        advice = "activate the environment, or pip install -r requirements/requirements_mini.txt"
        return _fail(f"{error}: {advice}")
    except _user_errors() as error:  # evaluated only on errors: it imports torch
        return _fail(error)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser for all commands without importing torch, so that `--help` is fast."""
    parser = argparse.ArgumentParser(
        prog="python -m lossyless.hub",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for run, add_options, help in (
        (compress, _compress_options, "compress a folder of images"),
        (decompress, _decompress_options, "decompress a file to features, without CLIP"),
        (info, _info_options, "describe a compressed file"),
        (merge, _merge_options, "join files compressed with one model, with labels and names"),
    ):
        # with abbreviations, `decompress --labels` would mean `--labels-out`
        command = commands.add_parser(run.__name__, help=help, allow_abbrev=False)
        command.set_defaults(run=run)
        add_options(command.add_argument)
    return parser


def _model_options(option: Callable[..., object]) -> None:
    text = "bottleneck: b01 uses the fewest bits, b001 is the most accurate (default: b005)"
    option("--model", choices=tuple(RELEASED), default="b005", help=text)
    text = "local bottleneck weights (default: download the released ones, 136 kB, on first use)"
    option("--pretrained", metavar="PATH", type=Path, help=text)


def _compress_options(option: Callable[..., object]) -> None:
    option("folder", metavar="FOLDER", type=Path, help="all images below it are compressed")
    option("out", metavar="OUT", type=Path, help="file to write")
    _model_options(option)
    text = "local CLIP ViT-B/32 checkpoint (default: download OpenAI's, 340 MB, on first use)"
    option("--clip", metavar="PATH", type=Path, help=text)
    option("--labels", action="store_true", help="store labels: subfolders of FOLDER are classes")
    text = "export labels to FILE (.npy); implies --labels"
    option("--labels-out", "--label-file", **FILE, help=text)
    text = "number the classes as in this compressed file (default: by sorted names)"
    option("--classes", **FILE, help=text)
    text = "official: larger files without checksums, for the paper's code"
    option("--format", choices=("container", "official"), default="container", help=text)
    text = "0.1 saves bits at the cost of slightly larger errors (default: 0)"
    option("--rdo", metavar="WEIGHT", type=float, default=0.0, help=text)
    text = "if an image cannot be read: fail, or skip it with a warning and exit with status 3"
    option("--on-error", choices=("raise", "skip"), default="raise", help=text)
    text = "compress only part K (1 to N) of N equal parts; `merge` joins the files"
    option("--shard", metavar="K/N", type=_shard, help=text)
    option("--device", help="cpu, cuda, cuda:1, ... (default: cuda if available)")
    option("--batch-size", metavar="N", type=partial(_integer, low=1), help="default: 128")
    text = "processes that read images (default: depends on the number of cores)"
    option("--workers", metavar="N", type=partial(_integer, low=0), help=text)


def _decompress_options(option: Callable[..., object]) -> None:
    option("file", **FILE)
    option("out", metavar="OUT.npy", type=Path, help="features to write, float32 [N, 512]")
    _model_options(option)
    text = "if parts of the file are damaged: fail, or skip them and exit with status 3"
    option("--on-damage", choices=("raise", "skip"), default="raise", help=text)
    option("--labels-out", **FILE, help="labels to write (.npy)")
    text = "labels to read (.npy), for files in the official format or from earlier versions"
    option("--label-file", **FILE, help=text)


def _info_options(option: Callable[..., object]) -> None:
    option("file", **FILE)
    option("--names", action="store_true", help="list the names of the images, in row order")


def _merge_options(option: Callable[..., object]) -> None:
    option("files", **FILE, nargs="+", help="two or more")
    option("--out", metavar="OUT", type=Path, required=True, help="file to write")


def compress(args: argparse.Namespace) -> int:
    if args.classes and not (args.labels or args.labels_out):
        raise UsageError("--classes needs --labels")
    for path in filter(None, (args.folder, args.classes)):
        path.stat()  # fail before weights are downloaded
    for path in filter(None, (args.out, args.labels_out)):
        file_to_replace(path)

    from lossyless.hub import clip_compressor

    try:
        compressor, _ = clip_compressor(
            args.model,
            device=args.device,
            clip_path=args.clip,
            pretrained_path=args.pretrained,
            rdo=args.rdo,
        )
    except ValueError as error:
        raise UsageError(error) from error
    settings = {"batch_size": args.batch_size, "num_workers": args.workers}
    report = compressor.compress_dataset(
        args.folder,
        args.out,
        label_file=args.labels_out,
        kwargs_dataloader={name: value for name, value in settings.items() if value is not None},
        labels=args.labels,
        format=args.format,
        shard=args.shard,
        classes=args.classes,
        on_error=args.on_error,
    )
    return PARTIAL if report.is_partial else DONE


def decompress(args: argparse.Namespace) -> int:
    if args.label_file is not None and args.labels_out is None:
        raise UsageError("--label-file needs --labels-out, the file to write the labels to")

    from lossyless.files import CompressedFile
    from lossyless.hub import feature_compressor
    from lossyless.hub.official_format import is_official

    if args.pretrained is None and not is_official(args.file):
        with CompressedFile(args.file, on_damage="skip") as file:
            model = file.header.meta.get("model")
        if model not in (None, *RELEASED):
            raise SourceError(
                f"{args.file}: was compressed with {model}: pass those weights (--pretrained PATH)"
            )
    compressor = feature_compressor(args.model, pretrained_path=args.pretrained)
    report = compressor.decompress_to_npy(
        args.file,
        args.out,
        label_file=args.label_file,
        labels_out=args.labels_out,
        on_damage=args.on_damage,
    )
    return PARTIAL if report.is_partial else DONE


def info(args: argparse.Namespace) -> int:
    from lossyless.files import CompressedFile
    from lossyless.hub.official_format import OfficialFile, is_official

    with (OfficialFile if is_official(args.file) else CompressedFile)(args.file) as file:
        facts, names = file.describe(), file.names if args.names else None
    if args.names:
        if names is None:
            raise SourceError(f"{args.file}: stores no names: not a container made from a folder")
        print(*names, sep="\n")
        return DONE
    for name, value in (facts.pop("meta", {}) | facts).items():
        print(f"{name}: {_format(value)}")
    return DONE


def merge(args: argparse.Namespace) -> int:
    if len(args.files) < 2:
        raise UsageError("merge: expected at least 2 files")

    from lossyless.files import merge_files
    from lossyless.hub.official_format import is_official

    for file in args.files:
        if is_official(file):
            raise SourceError(
                f"{file}: files in the official format cannot be merged. Decompress this "
                "file, and compress its features with `compress_features`."
            )
    n_examples = merge_files(args.files, args.out)
    print(f"{args.out}: {n_examples} img, {args.out.stat().st_size:,} bytes")
    return DONE


def _shard(text: str) -> tuple[int, int]:
    """Parse "K/N": return the zero-based shard index and the number of shards."""
    try:
        number, n_shards = map(int, text.split("/"))
    except ValueError:
        number, n_shards = 0, 0
    if not 1 <= number <= n_shards:
        raise argparse.ArgumentTypeError(f"expected K/N with 1 <= K <= N, found {text}")
    return number - 1, n_shards


def _integer(text: str, low: int) -> int:
    value = int(text)
    if value < low:
        raise argparse.ArgumentTypeError(f"expected at least {low}, found {value}")
    return value


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        more = f", ... ({len(value)} in all)" if len(value) > MAX_LISTED else ""
        return ", ".join(map(str, value[:MAX_LISTED])) + more
    return str(value)


def _fail(error: object, status: int = FAILED) -> int:
    if isinstance(error, OSError) and error.filename is not None:  # without the error number
        error = f"{error.filename}: {error.strerror}"
    print(f"error: {error}", file=sys.stderr)
    return status


def _user_errors() -> tuple[type[Exception], ...]:
    """Return the exception types that are printed without a traceback."""
    from torch import OutOfMemoryError  # out of GPU memory

    from lossyless.coding.payloads import CodingError
    from lossyless.files import ContainerError
    from lossyless.parallel import WorkerError
    from lossyless.weights import WeightsError

    of_files = (ContainerError, CodingError, SourceError, WeightsError, OSError)
    return *of_files, WorkerError, OutOfMemoryError


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
