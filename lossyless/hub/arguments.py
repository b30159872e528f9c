"""Arguments of `python -m lossyless.hub`."""

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Compress images to what CLIP sees of them, in about 1400 bits an image, for training classifiers.

  python -m lossyless.hub compress photos/ photos.bin --labels   # folders in photos/ are classes
  python -m lossyless.hub info photos.bin
  python -m lossyless.hub decompress photos.bin Z.npy            # float32 [N, 512]; needs no CLIP
  python -m lossyless.hub merge part1.bin part2.bin --out all.bin

Weights are downloaded on first use; without a network, --clip and --pretrained name local files.
"""
EPILOG = """\
Exit status: 0 done, 1 files or weights cannot be used (the message says which), 2 usage,
3 decompressed without what is damaged (--on-damage skip), 130 interrupted.
"""
DONE, FAILED, USAGE, DAMAGED, INTERRUPTED = 0, 1, 2, 3, 130


class CommandError(Exception):
    """An argument cannot be used; with the exit status."""

    def __init__(self, message: object, status: int = FAILED):
        super().__init__(message)
        self.status = status


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lossyless.hub",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    _add_compress(commands)
    _add_decompress(commands)
    info_parser = commands.add_parser("info", help="what is in a compressed file")
    info_parser.add_argument("file", metavar="FILE", type=Path)
    _add_merge(commands)
    return parser


def _add_compress(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("compress", help="a folder of images to a file")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="all images below it are compressed, in the order of their sorted paths",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write")
    _add_model(parser)
    parser.add_argument(
        "--clip",
        metavar="PATH",
        type=Path,
        help="local checkpoint of CLIP ViT-B/32 (default: OpenAI's, 340 MB on first use)",
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="also write labels, to OUT.labels.npy: the folders directly below FOLDER are classes",
    )
    parser.add_argument(
        "--label-file", metavar="FILE", type=Path, help="also write labels, to FILE"
    )
    parser.add_argument(
        "--format",
        choices=("container", "official"),
        default="container",
        help="official: larger files without checksums, as the paper's code reads and writes",
    )
    parser.add_argument(
        "--shard",
        metavar="K/N",
        type=_shard,
        help="only the K-th of N equal parts of the images, K = 1..N; `merge` joins the files",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--batch-size", metavar="N", type=_positive, help="default: 128")
    parser.add_argument(
        "--workers", metavar="N", type=_count, help="processes that read images (default: by cores)"
    )


def _add_decompress(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("decompress", help="a compressed file to features, without CLIP")
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument(
        "out", metavar="OUT.npy", type=Path, help="features to write, float32 [N, 512]"
    )
    _add_model(parser)
    parser.add_argument(
        "--on-damage",
        choices=("raise", "skip"),
        default="raise",
        help="of a damaged file, give nothing (default), or skip what is lost, say what it is, "
        "and exit with status 3",
    )
    parser.add_argument(
        "--label-file",
        metavar="FILE",
        type=Path,
        help="labels that were written with FILE (default: FILE.labels.npy)",
    )
    parser.add_argument(
        "--labels-out",
        metavar="FILE",
        type=Path,
        help="write the labels of the features in OUT.npy, which lack what was skipped",
    )


def _add_merge(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "merge",
        help="join compressed files of one model without coding anew",
        description="Join compressed files of one model without coding anew. Where all have labels "
        "beside them (FILE.labels.npy), those are joined, too (OUT.labels.npy).",
    )
    parser.add_argument(
        "files", metavar="FILE", type=Path, nargs="+", help="two or more, in this order"
    )
    parser.add_argument("--out", metavar="OUT", type=Path, required=True, help="file to write")


def _add_model(parser: argparse.ArgumentParser) -> None:
    from lossyless.hub import RELEASED

    parser.add_argument(
        "--model",
        choices=tuple(RELEASED),
        default="b005",
        help="released bottleneck; b01 is the smallest, b001 the most accurate (default: b005)",
    )
    parser.add_argument(
        "--pretrained",
        metavar="PATH",
        type=Path,
        help="local weights of the bottleneck (default: the released ones, 136 kB on first use)",
    )


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations: `--labels` would be `--labels-out`, and overwrite labels."""

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, **settings)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def _shard(text: str) -> tuple[int, int]:
    """Index, from 0, and number of the shards of "K/N"."""
    try:
        number, n_shards = map(int, text.split("/"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected K/N, such as 1/8, found {text}") from error
    if not 1 <= number <= n_shards:
        raise argparse.ArgumentTypeError(f"expected K/N with 1 <= K <= N, found {text}")
    return number - 1, n_shards


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {value}")
    return value


def check_folder(path: Path) -> None:
    if not path.is_dir():
        problem = "is a file, expected a folder" if path.exists() else "no such folder"
        raise CommandError(f"{path}: {problem} of images")


def check_file(path: Path) -> None:
    """That there is something to read."""
    if path.is_dir():
        raise CommandError(f"{path}: is a folder, expected a file")
    if not path.exists():
        raise CommandError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise CommandError(f"{path}: is empty")


def check_place(out: Path) -> None:
    """That a file can be written under this name."""
    if not out.parent.is_dir():
        raise CommandError(f"{out}: the folder {out.parent} does not exist: make it first")
    if out.is_dir():
        raise CommandError(f"{out}: is a folder, expected the name of a file to write")
