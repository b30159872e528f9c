"""Bottlenecks load from all namings, strictly, and as released."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from helpers.toy import digest_of

from lossyless.array_compressor import FILE_MAGIC
from lossyless.hub.bottlenecks import load_bottleneck
from lossyless.hub.released import RELEASED
from lossyless.rates import HFactorized
from lossyless.rates.transforms import TRANSFORMS
from lossyless.weights import WeightsError, check_sha256

Z_DIM = 5
REAL = Path(__file__).parents[4] / "shared" / "weights" / "beta5e-02" / "factorized_rate.pt"
LEGACY = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}


def official_state(is_legacy: bool) -> dict[str, torch.Tensor]:
    """As the official code saves it, with CompressAI 1.1's names or current ones."""
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(Z_DIM)
    bottleneck.quantiles.data += torch.randn(Z_DIM, 1, 1)
    state = {"scaling": torch.randn(Z_DIM), "biasing": torch.randn(Z_DIM)}
    for name, tensor in bottleneck.state_dict().items():
        part, _, number = name.partition(".")
        legacy = is_legacy and part in LEGACY
        state["entropy_bottleneck." + (LEGACY[part] + number if legacy else name)] = tensor
    return state


def save(state, tmp_path) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("is_legacy", [True, False])
def test_every_tensor_of_both_namings_arrives(is_legacy, tmp_path):
    state = official_state(is_legacy)
    rate = load_bottleneck(save(state, tmp_path))
    assert torch.equal(rate.scaling, state["scaling"])
    assert torch.equal(rate.biasing, state["biasing"])
    bottleneck = EntropyBottleneck(Z_DIM)
    current = official_state(is_legacy=False)
    names = bottleneck.state_dict().keys()
    bottleneck.load_state_dict({name: current[f"entropy_bottleneck.{name}"] for name in names})
    x = torch.randn(50, Z_DIM)
    for ours, theirs in zip(rate.prior(x), bottleneck.eval()(x), strict=True):
        assert torch.equal(ours, theirs)


def test_it_is_ready_to_code_and_keeps_the_centres(tmp_path):
    state = official_state(is_legacy=True)
    rate = load_bottleneck(save(state, tmp_path))
    rate.update()
    assert torch.equal(rate.prior.quantiles, state["entropy_bottleneck.quantiles"])
    z = torch.randn(20, Z_DIM)
    assert not rate.training
    assert torch.equal(rate.decompress(rate.compress(z), 20), rate.dequantise(rate.quantise(z)))


def test_our_own_weights_come_with_their_tables(tmp_path):
    torch.manual_seed(0)
    rate = HFactorized(Z_DIM)
    rate.update()
    rate.prior.biases[0].data += 1e-3  # tables of another machine
    loaded = load_bottleneck(save(rate.state_dict(), tmp_path))
    assert loaded.fingerprint() == rate.fingerprint()
    new = HFactorized(Z_DIM)
    assert load_bottleneck(save(new.state_dict(), tmp_path)).tables["z"].n_tables == Z_DIM


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_all_transforms_load(transform, tmp_path):
    torch.manual_seed(0)
    rate, z = HFactorized(Z_DIM, transform=transform), torch.randn(40, Z_DIM)
    rate.fit_transform(z)
    rate.update()
    loaded = load_bottleneck(save(rate.state_dict(), tmp_path))
    assert loaded.transform_name == transform
    assert loaded.fingerprint() == rate.fingerprint()
    assert torch.equal(loaded.decompress(rate.compress(z), 40), rate.eval()(z, None)[0])


def test_widths_of_official_weights_are_computed_on_loading(tmp_path):
    state = official_state(is_legacy=True)
    widths = load_bottleneck(save(state, tmp_path)).get_extra_state()["cell_widths"]
    assert widths.dtype == torch.float32
    assert torch.equal(widths, (-state["scaling"].double()).exp().float())


NAMES = list(official_state(is_legacy=True))
DERIVED = ("_offset", "_quantized_cdf", "_cdf_length")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(DERIVED)])
def test_a_missing_tensor_is_named(name, tmp_path):
    state = official_state(is_legacy=True)
    del state[name]
    kind = re.sub(r"\d|_|entropy_bottleneck\.", "", name)[:4]
    with pytest.raises(WeightsError, match=f"(missing: prior.{kind})|(missing: {name})|no vector"):
        load_bottleneck(save(state, tmp_path))


def test_unexpected_and_misshapen_tensors_are_named(tmp_path):
    state = official_state(is_legacy=True)
    state["side_encoder.0"] = torch.zeros(2)
    state["scaling"] = torch.zeros(Z_DIM + 1)
    with pytest.raises(
        WeightsError,
        match=r"1 unexpected: side_encoder.0; 1 of another shape: scaling is \[6\], expected \[5\]",
    ):
        load_bottleneck(save(state, tmp_path))


@pytest.mark.parametrize(
    "state",
    [
        torch.zeros(3),
        {},
        {"scaling": 3.0},
        {"scaling": torch.tensor(1.0)},
        [1],
        {1: torch.zeros(1)},
    ],
)
def test_foreign_contents_are_refused(state, tmp_path):
    with pytest.raises(WeightsError, match="weights.pt"):
        load_bottleneck(save(state, tmp_path))


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\3\4" + bytes(50), b"\x80\2."])
def test_foreign_files_are_refused(content, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="weights.pt could not be read"):
        load_bottleneck(path)
    with pytest.raises(WeightsError, match="missing.pt"):
        load_bottleneck(tmp_path / "missing.pt")


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    rate = HFactorized(Z_DIM)
    rate.update()
    path = save(rate.state_dict(), tmp_path)
    content, n_found = path.read_bytes(), 0
    for i in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[i] ^= 1
        path.write_bytes(damaged)
        try:
            loaded = load_bottleneck(path)
        except WeightsError as error:
            n_found += str(path) in str(error)
        else:  # it lies in what fills the archive up
            assert loaded.fingerprint() == rate.fingerprint()
    assert n_found > len(content) // 37 / 4


def test_the_file_of_an_array_compressor_is_named(tmp_path):
    path = tmp_path / "compressor.bin"
    path.write_bytes(FILE_MAGIC + bytes(100))
    with pytest.raises(WeightsError, match="compressor.bin: .*ArrayCompressor.load"):
        load_bottleneck(path)


@pytest.mark.parametrize(
    "tables",
    [{"side": {}}, {"z": {}}, {"z": {"cdfs": 3}}, 3, {"z": torch.zeros(3)}, {"cell_widths": 3}],
)
def test_damaged_tables_are_refused(tables, tmp_path):
    state = HFactorized(Z_DIM).state_dict() | {"_extra_state": tables}
    with pytest.raises(WeightsError, match="coding tables"):
        load_bottleneck(save(state, tmp_path))


def klt_state():
    rate = HFactorized(Z_DIM, transform="klt")
    rate.fit_transform(torch.randn(40, Z_DIM))
    rate.update()
    return rate.state_dict()


@pytest.mark.parametrize(
    "matrix, problem",
    [
        (1000 * torch.randn(Z_DIM, Z_DIM), "no rotation"),
        (torch.eye(Z_DIM) + 2.0**-24, "no multiples"),
        (torch.full((Z_DIM, Z_DIM), torch.nan), "NaN"),
        (2 * torch.eye(Z_DIM), "no rotation"),
        (torch.zeros(Z_DIM, Z_DIM), "no rotation"),
    ],
)
@pytest.mark.parametrize("has_tables", [True, False])
def test_a_transform_that_is_no_rotation_is_refused(matrix, problem, has_tables, tmp_path):
    state = klt_state() | {"transform.matrix": matrix}
    if not has_tables:
        state["_extra_state"] = {"transform": "klt"}
    with pytest.raises(WeightsError, match=f"weights.pt: transform: matrix .*{problem}"):
        load_bottleneck(save(state, tmp_path))


@pytest.mark.parametrize("name", ["no such", ["klt"], None])
def test_an_unknown_transform_is_named(name, tmp_path):
    state = klt_state()
    state["_extra_state"]["transform"] = name
    with pytest.raises(WeightsError, match=r"weights.pt: .*(no such|list|None)"):
        load_bottleneck(save(state, tmp_path))


def test_weights_that_diverged_are_refused(tmp_path):
    state = official_state(is_legacy=True)
    state["entropy_bottleneck._bias1"][0] = torch.nan
    with pytest.raises(WeightsError, match="diverged"):
        load_bottleneck(save(state, tmp_path))


def test_the_table_names_files_by_their_beta():
    for name, released in RELEASED.items():
        assert f"beta{released.beta:.0e}_factorized_rate.pt" in released.url
        assert len(released.sha256) == 64 and name.startswith("b0")


@pytest.mark.skipif(not REAL.exists(), reason="the released weights are not on this machine")
def test_the_tables_of_the_released_weights_are_the_same_on_every_machine():
    check_sha256(REAL, RELEASED["b005"].sha256)
    rate = load_bottleneck(REAL)
    tables, widths = rate.tables["z"], rate.get_extra_state()["cell_widths"]
    # whoever changes these makes files unreadable that were written with them
    assert digest_of(tables) == "b22db0fb9c9a4953ee9c94341da645ae"
    assert hashlib.sha256(widths.numpy().tobytes()).hexdigest()[:16] == "df8162868ef7153d"
