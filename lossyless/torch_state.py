"""Temporary changes to torch's global settings."""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import ParamSpec, TypeVar

import torch
from torch.overrides import TorchFunctionMode

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# names of the random functions used by weight initialisation and by torchvision's transforms
RANDOM = {"kaiming_uniform_", "normal", "normal_", "rand", "randint", "randn", "uniform_"}


def isolated(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorator that makes a function independent of the caller's torch settings.

    Inside the function, the default dtype is float32, the default device is the CPU, and autocast,
    gradients and inference mode are disabled, so that sender and receiver compute the same numbers.
    """

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        on_cpu = torch.get_default_device().type == "cpu"
        with (
            _float32(),
            nullcontext() if on_cpu else torch.device("cpu"),  # a device context slows torch down
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.inference_mode(False),  # inference tensors cannot be used in training
            torch.no_grad(),
        ):
            return function(*args, **kwargs)

    return wrapper


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Compute in float32: without autocast and, except in compiled code, without TF32."""
    with torch.autocast(device_type, enabled=False):
        # torch.compile cannot trace changes to the setting
        if torch.compiler.is_compiling() or torch.get_float32_matmul_precision() == "highest":
            yield
            return
        callers_precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(callers_precision)


# A forked process inherits torch's thread pool without the threads: it would wait for them forever.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))

_lock, _n_inside, _callers_dtype = threading.Lock(), 0, torch.float32


@contextmanager
def _float32() -> Iterator[None]:
    """Make float32 the default dtype of all threads while any thread is inside this context."""
    global _n_inside, _callers_dtype
    with _lock:
        if _n_inside == 0:
            _callers_dtype = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0:
                torch.set_default_dtype(_callers_dtype)


class drawing_from(TorchFunctionMode):
    """Context manager in which initial weights and random crops are drawn from a generator.

    Other threads and torch's global generator are not affected.
    """

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in RANDOM and kwargs.get("generator") is None:
            kwargs = kwargs | {"generator": self.generator}
        return func(*args, **kwargs)


@contextmanager
def one_thread() -> Iterator[None]:
    """Make torch use a single thread for work that the calling thread starts."""
    with _lock:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        # torch also applies the number to threads that start later: restore it for them
        other = threading.Thread(target=torch.set_num_threads, args=(n_threads,))
        other.start()
        other.join()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
