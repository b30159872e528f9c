"""Compress folders of images from the shell: `python -m lossyless.hub --help`."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from lossyless.hub.arguments import (
    DAMAGED,
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    CommandError,
    check_file,
    check_folder,
    check_place,
    make_parser,
)

MAX_LISTED = 8


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit status."""
    args = make_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return COMMANDS[args.command](args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except CommandError as error:
        return _fail(error, error.status)
    except ModuleNotFoundError as error:
        if error.name == "compressai":  # which says itself how to get it
            return _fail(error, FAILED)
        advice = "activate the environment, or pip install -r requirements/requirements_mini.txt"
        return _fail(f"{error}: {advice}", FAILED)
    except _user_errors() as error:  # evaluated when something went wrong: it imports torch
        return _fail(error, FAILED)


def compress(args: argparse.Namespace) -> int:
    check_folder(args.folder)
    label_file = args.label_file
    if label_file is None and args.labels:
        label_file = _usual_label_file(args.out)
    _check_files([], [args.out] if label_file is None else [args.out, label_file])

    from lossyless.hub import clip_compressor

    try:
        compressor, _ = clip_compressor(
            args.model, device=args.device, clip_path=args.clip, pretrained_path=args.pretrained
        )
    except ValueError as error:
        raise CommandError(error, USAGE) from error
    settings = {"batch_size": args.batch_size, "num_workers": args.workers}
    compressor.compress_dataset(
        args.folder,
        args.out,
        label_file=label_file,
        kwargs_dataloader={name: value for name, value in settings.items() if value is not None},
        format=args.format,
        shard=args.shard,
    )
    return DONE


def decompress(args: argparse.Namespace) -> int:
    if args.label_file is not None and args.labels_out is None:
        raise CommandError(
            "--label-file goes with --labels-out, which says where the labels of OUT.npy go", USAGE
        )
    read, written, label_file = [args.file], [args.out], None
    if args.labels_out is not None:
        label_file = args.label_file or _usual_label_file(args.file)
        read.append(label_file)
        written.append(args.labels_out)
    _check_files(read, written)
    _check_is_compressed(args.file)

    from lossyless.hub import feature_compressor

    compressor = feature_compressor(args.model, pretrained_path=args.pretrained)
    report = compressor.decompress_to_npy(
        args.file,
        args.out,
        label_file=label_file,
        labels_out=args.labels_out,
        on_damage=args.on_damage,
    )
    return DAMAGED if report.is_partial else DONE


def info(args: argparse.Namespace) -> int:
    check_file(args.file)

    facts = _describe(args.file)
    meta = facts.pop("meta", {})
    facts |= {f"meta.{name}": value for name, value in meta.items()}
    for name, value in facts.items():
        print(f"{name}: {_in_words(value)}")
    return DONE


def merge(args: argparse.Namespace) -> int:
    if len(args.files) < 2:
        raise CommandError("merge: expected at least 2 files to merge", USAGE)
    _check_files(args.files, [args.out])

    from lossyless.hub.merging import merge

    print(merge(args.files, args.out))
    return DONE


COMMANDS = {"compress": compress, "decompress": decompress, "info": info, "merge": merge}


def _check_files(read: list[Path], written: list[Path]) -> None:
    """Of a command's files, before anything is loaded: what is there, and what can be written."""
    for file in read:
        check_file(file)
    for file in written:
        check_place(file)

    from lossyless.hub.files import check_distinct

    check_distinct(written, read)


def _check_is_compressed(file: Path) -> None:
    """That the head of a file is of either format; else nobody need look for weights."""
    from lossyless.container.file import ContainerFile
    from lossyless.hub.official_format import is_official

    if not is_official(file):
        ContainerFile(file).close()


def _describe(file: Path) -> dict[str, Any]:
    """What a file of either format says about itself."""
    from lossyless.container import ContainerError
    from lossyless.feature_files import describe

    try:
        return describe(file)
    except ContainerError:
        from lossyless.hub.official_format import is_official

        if not is_official(file):
            raise
        return _describe_official(file)


def _describe_official(file: Path) -> dict[str, Any]:
    from lossyless.hub.official_format import read_official

    n_bytes, n_images = file.stat().st_size, sum(1 for _ in read_official(file))
    return {
        "path": str(file),
        "format": "official, of the paper's code: it names no model and has no checksums",
        "n_examples": n_images,
        "n_bytes": n_bytes,
        "bits_per_example": 8 * n_bytes / n_images if n_images else None,
    }


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list) and len(value) > MAX_LISTED:
        first = ", ".join(map(str, value[: MAX_LISTED - 1]))
        return f"{first}, ..., {value[-1]} ({len(value)} in all)"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _usual_label_file(file: Path) -> Path:
    from lossyless.hub.merging import usual_label_file

    return usual_label_file(file)


def _fail(error: object, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


def _user_errors() -> tuple[type[Exception], ...]:
    """What is wrong with the user's files rather than with this code."""
    from lossyless.coding.payloads import CodingError
    from lossyless.container import ContainerError
    from lossyless.feature_files import WorkerError
    from lossyless.hub import SourceError
    from lossyless.weights import WeightsError

    return ContainerError, CodingError, SourceError, WeightsError, WorkerError, OSError


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
