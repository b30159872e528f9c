"""Models and bytes depend neither on the caller's torch settings nor on other threads."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from helpers.fixed_codecs import CODECS, fixed
from helpers.tiny_clip import SIDE
from helpers.toy import ENTROPY_CODED
from PIL import Image
from torch.utils import serialization
from torch.utils._python_dispatch import TorchDispatchMode

from lossyless import ArrayCompressor
from lossyless.architectures import Identity
from lossyless.backbones.torchvision import build
from lossyless.distortions import ContrastiveDistortion
from lossyless.hub import clip_compressor, feature_compressor
from lossyless.torch_state import one_thread

Z = np.random.default_rng(0).normal(3, 2, (200, 5)).astype(np.float32)


@contextmanager
def set_to(set_value, value, default):
    set_value(value)
    try:
        yield
    finally:
        set_value(default)


SETTINGS = {
    "float64": lambda: set_to(torch.set_default_dtype, torch.float64, torch.float32),
    "device": lambda: set_to(torch.set_default_device, "meta", None),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference_mode": torch.inference_mode,
    "mmap": lambda: set_to(partial(setattr, serialization.config.load, "mmap"), True, False),
    "deterministic": lambda: set_to(torch.use_deterministic_algorithms, True, False),
}


@pytest.fixture(params=SETTINGS)
def setting(request):
    return SETTINGS[request.param]


def fitted(make=ArrayCompressor.paper):
    return make().fit(Z)


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossyless.paper_compressor.MIN_STEPS", 20)
        yield


@pytest.mark.parametrize("make", [ArrayCompressor, ArrayCompressor.paper])
def test_a_compressor_of_arrays(setting, make, tmp_path):
    plain = fitted(make)
    payload, score = plain.compress(Z), plain.score(Z)
    plain.save(tmp_path / "plain")
    with setting():
        other = fitted(make)
        loaded = ArrayCompressor.load(tmp_path / "plain")
        other.save(tmp_path / "other")
        for compressor in (other, loaded, plain):
            assert compressor.compress(Z) == payload and compressor.score(Z) == score
            decoded = compressor.decompress(payload)
            assert decoded.dtype == np.float32
            np.testing.assert_array_equal(decoded, compressor.transform(Z))
    for compressor in (other, loaded, ArrayCompressor.load(tmp_path / "other")):
        assert compressor.compress(Z) == payload and compressor.score(Z) == score


def test_codecs_are_created_in_float32_on_the_cpu(setting):
    def create() -> list:
        torch.manual_seed(0)
        return [make() for make in CODECS.values()]

    plain = create()
    with setting():
        created = create()
    for codec, expected in zip(created, plain, strict=True):
        for found, tensor in zip(tensors(codec), tensors(expected), strict=True):
            assert torch.equal(found, tensor) and found.dtype == tensor.dtype
            assert found.requires_grad == tensor.requires_grad and not found.is_inference()


def tensors(codec: torch.nn.Module) -> list[torch.Tensor]:
    return [*codec.parameters(), *codec.buffers()]


def test_the_hub(setting, weights, tmp_path):
    picture = Image.fromarray(np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3))
    z, X = fixed("z", (50, 512), 2**-5), fixed("X", (3, 3, SIDE, SIDE), 2**-7)

    def results(clip, features) -> list:
        files = [tmp_path / "Z", tmp_path / "official"]
        for file, format in zip(files, ("container", "official"), strict=True):
            features.compress_features(z, file, format=format)
        with features.open(files[0]) as file:
            decoded = [
                clip.transform(picture),
                clip(X),
                clip.theoretical_rate(X),
                file[3],
                file[[1, 2]],
            ]
        return [
            *(file.read_bytes() for file in files),
            *(features.decompress_dataset(file).tobytes() for file in files),
            *((tensor.dtype, tensor.numpy().tobytes()) for tensor in decoded),
            *clip.compress(X),
        ]

    compressor, _ = clip_compressor(device="cpu", **weights)
    decoder = feature_compressor(pretrained_path=weights["pretrained_path"])
    expected = results(compressor, decoder)
    with setting():
        assert results(compressor, decoder) == expected
        clip, _ = clip_compressor(device="cpu", **weights)
        found = results(clip, feature_compressor(pretrained_path=weights["pretrained_path"]))
    assert found == expected


# --- threads


def test_threads_train_the_same_model():
    expected, n_threads = fitted().compress(Z), torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: fitted(), range(4)))
        assert list(pool.map(lambda _: torch.get_num_threads(), range(8))) == [n_threads] * 8
        with SETTINGS["float64"]():
            models += pool.map(lambda _: fitted(), range(4))
            assert torch.get_default_dtype() == torch.float64
    assert torch.get_num_threads() == n_threads
    assert [model.compress(Z) for model in models] == [expected] * 8


def test_one_thread_is_a_setting_of_this_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread(), ThreadPoolExecutor(1) as pool:
            assert torch.get_num_threads() == 1
            assert pool.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(n_threads)


def test_forked_processes_do_not_wait_for_the_threads_of_their_parent():
    model, rows, context = fitted(ArrayCompressor), np.tile(Z, (100, 1)), get_context("fork")
    ours, theirs = context.Pipe()
    with set_to(torch.set_num_threads, 2, torch.get_num_threads()):
        expected = model.compress(rows)  # starts the threads
        process = context.Process(target=lambda: theirs.send_bytes(model.compress(rows)))
        process.start()
    try:
        assert ours.poll(60) and ours.recv_bytes() == expected
    finally:
        process.kill()
        process.join()


def test_loading_draws_nothing(weights, tmp_path):
    model = fitted()
    model.save(tmp_path / "model")

    def states() -> list:
        return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]

    before = states()
    ArrayCompressor.load(tmp_path / "model").compress(Z)
    clip_compressor(device="cpu", **weights)
    build("resnet18")
    assert states() == before


class MatrixProducts(TorchDispatchMode):
    """Records torch's precision of matrix products, which decides whether GPUs use TF32."""

    def __init__(self):
        super().__init__()
        self.precisions = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "mm" in func.__name__:
            self.precisions.add(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*ENTROPY_CODED, "contrastive"])
def test_rates_and_contrastive_logits_are_not_computed_in_tf32(name):
    z = torch.randn(2, 16, 12)
    if name == "contrastive":
        bottleneck, inputs = ContrastiveDistortion(12, Identity, project_factor=1), z
    else:
        bottleneck, inputs = ENTROPY_CODED[name](12), z[:1]
        bottleneck.fit_transform(z[0])
    with set_to(torch.set_float32_matmul_precision, "high", "highest"):
        with MatrixProducts() as products:
            bottleneck(*inputs)
        assert torch.get_float32_matmul_precision() == "high"
    assert products.precisions == {"highest"}
