"""Compress folders of images from the shell: `python -m lossyless.hub --help`."""

import argparse
import sys
import warnings
from pathlib import Path

DESCRIPTION = """\
Compress images to what CLIP sees of them, in about 1400 bits an image, for training classifiers.

  python -m lossyless.hub compress photos/ photos.bin --labels   # folders in photos/ are classes
  python -m lossyless.hub info photos.bin
  python -m lossyless.hub decompress photos.bin Z.npy            # float32 [N, 512]; needs no CLIP

Weights are downloaded on first use; without a network, --clip and --pretrained name local files.
"""
EPILOG = "Exit status: 0 done, 1 files or weights cannot be used (the message says which), 2 usage."


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit status."""
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            args.run(args)
        except _user_errors() as error:  # evaluated when something went wrong: --help stays fast
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


def compress(args: argparse.Namespace) -> None:
    from lossyless.hub import clip_compressor

    compressor, _ = clip_compressor(
        args.model, device=args.device, clip_path=args.clip, pretrained_path=args.pretrained
    )
    settings = {"batch_size": args.batch_size, "num_workers": args.workers}
    compressor.compress_dataset(
        args.folder,
        args.out,
        label_file=_labels_of(args.out) if args.labels is True else args.labels,
        kwargs_dataloader={name: value for name, value in settings.items() if value is not None},
        adapt=args.adapt,
        format=args.format,
    )


def decompress(args: argparse.Namespace) -> None:
    from lossyless.hub import feature_compressor

    compressor = feature_compressor(args.model, pretrained_path=args.pretrained)
    compressor.decompress_to_npy(
        args.file,
        args.out,
        label_file=(args.labels or _labels_of(args.file)) if args.labels_out else args.labels,
        labels_out=args.labels_out,
        on_damage=args.on_damage,
    )


def info(args: argparse.Namespace) -> None:
    from lossyless.feature_files import describe

    for name, value in describe(args.file).items():
        print(f"{name}: {value}")


def merge(args: argparse.Namespace) -> None:
    from lossyless.feature_files import merge_files

    merge_files(args.files, args.out)


def _labels_of(file: Path) -> Path:
    """Where the labels of a compressed file are unless something else is said."""
    return file.with_name(f"{file.name}.labels.npy")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lossyless.hub",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_compress(commands)
    _add_decompress(commands)
    info_parser = commands.add_parser("info", help="what is in a compressed file")
    info_parser.add_argument("file", metavar="FILE", type=Path)
    info_parser.set_defaults(run=info)
    merge_parser = commands.add_parser(
        "merge", help="join compressed files of one model without coding anew"
    )
    merge_parser.add_argument("out", metavar="OUT", type=Path, help="file to write")
    merge_parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="in this order")
    merge_parser.set_defaults(run=merge)
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
        metavar="FILE",
        type=Path,
        nargs="?",
        const=True,
        help="also write labels: the folders directly below FOLDER are the classes "
        "(default file: OUT.labels.npy)",
    )
    parser.add_argument(
        "--adapt", action="store_true", help="fit the coding tables to these images: smaller files"
    )
    parser.add_argument(
        "--format",
        choices=("container", "official"),
        default="container",
        help="official: larger files without checksums, as the paper's code reads and writes",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--batch-size", metavar="N", type=_positive, help="default: 128")
    parser.add_argument(
        "--workers", metavar="N", type=_count, help="processes that read images (default: by cores)"
    )
    parser.set_defaults(run=compress)


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
        help="of a damaged file, give nothing (default), or skip what is lost and say what it is",
    )
    parser.add_argument(
        "--labels",
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
    parser.set_defaults(run=decompress)


def _add_model(parser: argparse.ArgumentParser) -> None:
    from lossyless.hub.released import RELEASED

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


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {value}")
    return value


def _user_errors() -> tuple[type[Exception], ...]:
    """What is wrong with the user's files rather than with this code."""
    from lossyless.container import ContainerError
    from lossyless.feature_files import WorkerError
    from lossyless.hub.sources import SourceError
    from lossyless.payloads import CodingError
    from lossyless.weights import WeightsError

    return ContainerError, CodingError, SourceError, WeightsError, WorkerError, OSError


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
