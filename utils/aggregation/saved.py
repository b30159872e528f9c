"""Errors of options that use finished runs again."""

import contextlib
from collections.abc import Iterator

from utils.configs.composing import ConfigError
from utils.data.module import DataError


@contextlib.contextmanager
def named_errors(option: str) -> Iterator[None]:
    """Missing checkpoints and data are a ConfigError of this option, without a traceback.

    The messages of both say what to do.
    """
    try:
        yield
    except (FileNotFoundError, DataError) as error:
        raise ConfigError(f"{option}: {error}") from error
