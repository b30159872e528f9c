"""Communication: the bytes written are counted, and decoded data equal what was sent."""

import math

import numpy as np
import pytest
import torch
from helpers.stored_features import n_bytes_without_labels
from helpers.tiny import compose, run

from lossyless.classical import ClassicalCompressor
from lossyless.files import write_features
from lossyless.rates import HFactorized
from utils.data.banana import BananaDataModule
from utils.data.module import SPLITS
from utils.data.sources.digits import digits
from utils.evaluation import communication
from utils.runs.run import find_run
from utils.runs.stopwatch import Stopwatch
from utils.training import building, jobs

CPU = torch.device("cpu")


@pytest.fixture
def banana():
    return BananaDataModule(equivalence="rotation", n_train=100, n_eval=30, eval_batch_size=16)


@pytest.fixture
def compressor(make_compressor, banana):
    """A compressor with coding tables and a nonzero rate."""
    compressor = make_compressor(method="VIC", rate=HFactorized(4))
    with torch.no_grad():
        for parameter in compressor.p_ZlX.parameters():
            parameter.mul_(5)
    compressor.eval().rate.update()
    return compressor


def send(compressor, data, folder, n_copies=1, chunk_size=64):
    return communication.send_splits(
        compressor, data, folder, device=CPU, n_copies=n_copies, chunk_size=chunk_size
    )


@pytest.mark.parametrize("chunk_size", [1, 7, 10000])
def test_decoded_representations_equal_z_hat_exactly(compressor, banana, tmp_path, chunk_size):
    sent = send(compressor, banana, tmp_path, chunk_size=chunk_size)
    for split in SPLITS:
        path = communication.data_file(tmp_path, split)
        watch = Stopwatch(CPU)
        batches = communication.receive(compressor, path, CPU, batch_size=7, watch=watch)
        decoded = torch.cat(list(batches))
        loader = banana.loader(split, shuffle=False)
        expected = torch.cat([compressor(batch.x) for batch in loader])
        assert torch.equal(decoded, expected) and watch.seconds > 0
        assert sent[split].n_examples == len(expected)
        assert 0 < sent[split].n_bytes < path.stat().st_size
        targets = torch.from_numpy(communication.read_targets(tmp_path, split))
        assert torch.equal(targets, torch.cat([batch.y for batch in loader]))


def test_targets_do_not_count_as_bits(compressor, banana, tmp_path):
    """The bits equal those of a file without targets."""
    sent = send(compressor, banana, tmp_path)["test"]
    z = [compressor.represent(batch.x) for batch in banana.loader("test")]
    path = communication.data_file(tmp_path, "test")
    written = write_features(z, path, compressor.codec, chunk_size=64)
    assert abs(sent.n_bytes - written.n_bytes) == len("false") - len("true")
    np.save(tmp_path / "test_y.npy", np.arange(5))  # as in earlier releases
    assert communication.read_targets(tmp_path, "test").tolist() == [0, 1, 2, 3, 4]


def test_copies_of_the_training_set_are_augmented_differently(make_compressor, tmp_path):
    data = digits(side=8, margin=0, equivalence=["rotation"])
    codec = ClassicalCompressor("png", n_channels=1)
    sent = send(codec, data, tmp_path, n_copies=2, chunk_size=500)
    n_train = data.n_examples("train")
    assert sent["train"].n_examples == 2 * n_train
    assert sent["val"].n_examples == data.n_examples("val")
    batches = communication.receive(codec, communication.data_file(tmp_path, "train"), CPU)
    images = torch.cat(list(batches))
    assert not torch.equal(images[:n_train], images[n_train:])


def test_coded_bits_slightly_exceed_the_rate(tmp_path):
    """The rate is a lower bound; long streams have little overhead, short ones have a lot."""
    sizes = [f"{p}.kwargs.n_eval=5000" for p in ("data_feat", "data_pred")]
    sizes += [f"{p}.kwargs.eval_batch_size=5000" for p in ("data_feat", "data_pred")]
    more = ["communication.chunk_size=5000", "featurizer.loss.beta=0.05", "trainer.max_epochs=4"]
    metrics = run(tmp_path, *sizes, *more)
    rate, n_bits = metrics["test/comm/rate"], metrics["test/comm/n_bits"]
    assert rate == pytest.approx(metrics["test/feat/rate"], rel=1e-4)
    assert 0.999 * rate < n_bits < 1.02 * rate + 0.1
    assert metrics["test/comm/n_bits_single"] > n_bits


def test_a_rate_of_zero_stays_zero(compressor, banana, tmp_path, monkeypatch):
    monkeypatch.setattr(type(compressor), "rates", lambda self, x: torch.zeros(len(x)))
    sent = send(compressor, banana, tmp_path)
    metrics = communication.measure(
        compressor,
        banana,
        "test",
        sent=sent["test"],
        path=communication.data_file(tmp_path, "test"),
        device=CPU,
        n_single=2,
    )
    assert metrics["test/comm/rate"] == 0 and metrics["test/comm/n_bits"] > 0


@pytest.mark.parametrize("distortion", ["VIC", "VAE"])
def test_vic_is_measured_on_augmented_inputs_and_predictors_get_originals(tmp_path, distortion):
    overrides = [f"distortion={distortion}", "data_feat.kwargs.equivalence=x_translation"]
    overrides += ["data_pred.kwargs.equivalence=x_translation"]
    metrics = run(tmp_path, *overrides)
    cfg = compose(tmp_path, *overrides)
    with jobs.prepared(cfg) as cfg:
        compressor = building.load_compressor(cfg)
        work = find_run(cfg, "communication").work
        data = building.build_data(cfg, "data_pred", "none")
        points = torch.cat([batch.x for batch in data.loader("test")])
        received = communication.receive(compressor, communication.data_file(work, "test"), CPU)
        assert torch.equal(torch.cat(list(received)), compressor(points))
        measured = data.with_auxiliary(compressor.distortion.needs).loader("test")
        inputs = torch.cat([batch.x for batch in measured])
    assert torch.equal(inputs, points) == (distortion == "VAE")
    rate = compressor.rates(inputs).mean().item() / math.log(2)
    assert metrics["test/comm/rate"] == pytest.approx(rate, rel=1e-5)
    assert metrics["test/comm/rate"] == pytest.approx(metrics["test/feat/rate"], rel=1e-5)
    folder = work if distortion == "VAE" else work / "measured"
    n_bytes = n_bytes_without_labels(communication.data_file(folder, "test"))
    assert metrics["test/comm/n_bits"] == 8 * n_bytes / len(points)
