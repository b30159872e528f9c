"""What one device encodes, every device decodes to the same bits.

Payloads from two devices may differ: their exponentials may differ in the last digit, so a value at
the edge of a cell may be rounded to the other side. What matters is that each receiver decodes the
z_hat that the sender evaluated.
"""

import copy
import io
from collections.abc import Iterator

import pytest
import torch
from helpers.toy import ENTROPY_CODED, fit_rate
from torch import Tensor

from lossyless.array_compressor import ArrayCompressor
from lossyless.files import FeatureFile, write_features
from lossyless.rates import EntropyCodedRate, HFactorized, Lossless, MIRate

CPU = torch.device("cpu")
CASES = [(name, transform) for transform in ("none", "klt") for name in ENTROPY_CODED]


def draw(device: torch.device, n: int, seed: int) -> Tensor:
    """Correlated vectors [n, D] whose dimensions differ in mean and scale, as in real features.

    D is 128 on a GPU and 32 in the rehearsal.
    """
    dim = 32 if device == CPU else 128
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(dim, dim, generator=generator) / dim**0.5
    mean = 3 * torch.randn(dim, generator=generator)
    generator.manual_seed(seed)
    loudness = torch.randn(n, 1, generator=generator).mul(0.3).exp()
    noise = torch.randn(n, dim, generator=generator) * torch.logspace(-1, 1, dim)
    return mean + loudness * noise @ mixing


def fit(rate: EntropyCodedRate, z: Tensor, n_steps: int) -> EntropyCodedRate:
    """Train a rate on the device of z."""
    rate.to(z.device).fit_transform(z)
    return fit_rate(rate, n_steps, z=z, lr=5e-3).requires_grad_(False)


@pytest.fixture(scope="module")
def trained() -> dict[tuple, EntropyCodedRate]:
    return {}


@pytest.fixture(params=CASES, ids="-".join)
def rate(request, device, trained) -> EntropyCodedRate:
    """Each entropy-coded rate, with and without a KLT, trained on the device."""
    name, transform = request.param
    key = device.type, name, transform
    if key not in trained:
        torch.manual_seed(0)
        n, n_steps = (1024, 10) if device == CPU else (8192, 150)
        z = draw(device, n, seed=2).to(device)
        trained[key] = fit(ENTROPY_CODED[name](z.shape[1], transform=transform), z, n_steps)
    return copy.deepcopy(trained[key])


def examples(device: torch.device) -> Tensor:
    """Vectors, on the CPU, on which no rate was trained; some values are outliers."""
    z = draw(device, 500 if device == CPU else 4096, seed=3)
    z[3, 1], z[7], z[20, 2] = 1e5, -3e4, -1e6
    return z


def test_each_device_decodes_what_the_other_coded(rate, device, report, request):
    z, on_cpu = examples(device), copy.deepcopy(rate).cpu()
    assert rate.fingerprint() == on_cpu.fingerprint()
    payloads, expected = {}, {}
    for sender, place in ((rate, device), (on_cpu, CPU)):
        payloads[place], expected[place] = sender.compress(z.to(place)), sender(z.to(place))[0]
        for receiver in (rate, on_cpu):
            decoded = receiver.decompress(payloads[place], len(z))
            assert torch.equal(decoded.cpu(), expected[place].cpu()), "decoded z_hat differs"
    for size in (1, 7, 100):
        z_hat = rate(z[:size].to(device))[0]
        assert torch.equal(z_hat, expected[device][:size]), f"z_hat depends on batch size {size}"
    n_other = (expected[device].cpu() != expected[CPU]).sum().item()
    n_bits = 8 * len(payloads[device]) / len(z)
    case = request.node.callspec.id
    report(f"{case}: {n_bits:.1f} bits; {n_other} of {z.numel()} values differ from the CPU's")


def test_low_precision_settings_change_no_bit(rate, device):
    z = draw(device, 1000, seed=3).to(device)
    payload, z_hat = rate.compress(z), rate(z)[0]
    for _ in low_precision(device):
        assert rate.compress(z) == payload
        assert torch.equal(rate(z)[0], z_hat)


def low_precision(device: torch.device) -> Iterator[None]:
    """Enable TF32, then each kind of autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(device.type, dtype):
            yield


def test_tables_are_the_same_when_another_device_makes_them(rate):
    """Equality is not guaranteed, but in practice, files from two senders should not differ."""
    other = copy.deepcopy(rate).cpu()
    other.update()
    assert other.fingerprint() == rate.fingerprint()


@pytest.mark.parametrize("make", [MIRate, Lossless])
def test_uncoded_floats_do_not_change(make, device):
    z = examples(device)
    sender = make(z.shape[1]).eval().to(device)
    receiver = copy.deepcopy(sender).cpu()
    assert torch.equal(receiver.decompress(sender.compress(z.to(device)), len(z)), z)


def test_files_written_on_the_device_are_read_on_the_cpu(device, tmp_path):
    z_train, z = draw(device, 1024, seed=2).to(device), examples(device).to(device)
    rate = fit(HFactorized(z.shape[1]), z_train, n_steps=10)
    write_features([z], tmp_path / "z.bin", rate)
    buffer = io.BytesIO()
    torch.save(rate.state_dict(), buffer)
    buffer.seek(0)
    receiver = HFactorized(z.shape[1]).eval()
    receiver.load_state_dict(torch.load(buffer, map_location="cpu", weights_only=True))
    with FeatureFile(tmp_path / "z.bin", receiver) as file:
        assert torch.equal(file.read(), rate(z)[0].cpu())


def test_an_array_compressor_trained_on_the_device_decodes_on_the_cpu(device, tmp_path):
    z = draw(device, 1024, seed=2).numpy()
    trained = ArrayCompressor.paper(device=str(device)).fit(z)
    payload = trained.compress(z)
    trained.save(tmp_path / "compressor.bin")
    loaded = ArrayCompressor.load(tmp_path / "compressor.bin").set_params(device="cpu")
    assert (loaded.decompress(payload) == trained.decompress(payload)).all()
