"""Features of a frozen backbone: computed once, never incomplete, never from other settings."""

import multiprocessing
import time

import numpy as np
import pytest
import torch
from helpers.batches import gather
from torch import nn

from lossyless.backbones import Backbone
from utils.data.examples import InMemory
from utils.data.feature_cache import FeatureCache
from utils.data.features import FeatureDataModule
from utils.data.module import SPLITS, DataError
from utils.data.sources import digits as digits_set

SIDE, DIM = 8, 5
N_EXAMPLES = {"train": 1197, "val": 200, "test": 400}
ROTATED = {"equivalence": ["rotation"]}


class Project(nn.Module):
    """A backbone with random weights."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(DIM, 3 * SIDE * SIDE, generator=generator))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


@pytest.fixture
def make(tmp_path):
    """Build features of the digits; its attribute `calls` counts the towers that were created."""

    def make_data(
        key=None, seed=1, n_copies=1, folder=tmp_path / "features", make_network=Project, **kwargs
    ):
        images = {k: kwargs.pop(k) for k in ("equivalence", "is_augment_val") if k in kwargs}
        digits = digits_set.digits(
            side=SIDE, margin=0, auxiliary="none", eval_batch_size=256, seed=seed, **images
        )

        def make_tower():
            make_data.calls.append(1)
            return Backbone(make_network(), side=SIDE)

        return FeatureDataModule(
            digits,
            make_tower,
            z_dim=DIM,
            cache=FeatureCache(folder, "digits_tiny", key or {"tower": "tiny"}, images),
            device=torch.device("cpu"),
            n_copies=n_copies,
            seed=seed,
            **{"batch_size": 100, "eval_batch_size": 128} | kwargs,
        )

    make_data.calls = []
    return make_data


def folders(tmp_path):
    return [path for path in (tmp_path / "features").iterdir() if path.is_dir()]


def test_features_are_those_of_the_tower_with_the_targets_of_the_images(make):
    data, tower = make(), Backbone(Project(), side=SIDE)
    assert (data.kind, data.shape, data.n_outputs, data.task) == ("vector", (DIM,), 10, data.task)
    for split in SPLITS:
        assert data.n_examples(split) == N_EXAMPLES[split]
        loader = data.loader(split, shuffle=False)
        expected = list(data.images.loader(split, shuffle=False))
        torch.testing.assert_close(gather(loader).x, tower(torch.cat([b.x for b in expected])))
        assert torch.equal(gather(loader).y, torch.cat([b.y for b in expected]))
        assert data.encoder_time(split) > 0


def test_splits_are_computed_lazily_and_once_per_key(make, tmp_path):
    list(make().loader("test"))
    assert [path.name.rsplit("_", 1)[0] for path in folders(tmp_path)] == ["digits_tiny_test"]
    first = [gather(make().loader(split)).x for split in SPLITS]
    assert len(make.calls) == len(SPLITS)
    again = make(seed=2)  # without augmentations, features do not depend on it
    assert torch.equal(gather(again.loader("test")).x, first[2])
    assert again.encoder_time("val") > 0 and len(make.calls) == len(SPLITS)
    list(make({"tower": "b"}).loader("test"))
    assert len(make.calls) == len(folders(tmp_path)) == len(SPLITS) + 1


# --- augmentations


def test_epochs_cycle_through_different_augmented_copies(make, tmp_path):
    data = make(n_copies=2, **ROTATED)
    copies = [gather(data.loader("train", epoch=k, shuffle=False)).x for k in range(2)]
    assert not torch.equal(*copies)
    shuffled = [gather(make(n_copies=2, **ROTATED).loader("train", epoch=k)).x for k in range(4)]
    for epoch, found in enumerate(shuffled):
        assert (found[:50, None] == copies[epoch % 2][None]).all(-1).any(1).all()
    assert not torch.equal(shuffled[0], shuffled[2])
    assert len(make.calls) == len(folders(tmp_path)) == 2
    data = make(n_copies=3)  # without augmentations
    assert torch.equal(*(gather(data.loader("train", epoch=k, shuffle=False)).x for k in range(2)))


def test_only_augmented_splits_depend_on_augmentations_and_their_seed(make, tmp_path):
    kwargs = ROTATED | {"is_augment_val": False}
    train = [gather(make(seed=s, **kwargs).loader("train", shuffle=False)).x for s in (1, 2)]
    val = [gather(make(seed=s, **kwargs).loader("val")).x for s in (1, 2)]
    assert not torch.equal(*train) and torch.equal(*val)
    other = make(equivalence=["hflip"], is_augment_val=False)
    assert torch.equal(gather(other.loader("val")).x, val[0])
    list(other.loader("train"))
    splits = [path.name.split("_")[2] for path in folders(tmp_path)]
    assert sorted(splits) == ["train", "train", "train", "val"]


def test_auxiliary_variables_that_need_images_are_rejected(make):
    for auxiliary in ("none", "input", "target"):
        batch = next(iter(make(auxiliary=auxiliary).loader("val")))
        expected = {"none": None, "input": batch.x, "target": batch.y}[auxiliary]
        assert batch.aux is expected or torch.equal(batch.aux, expected)
    for auxiliary in ("representative", "positive"):
        with pytest.raises(ValueError, match=f"{auxiliary}.*distortion=lossy_Z"):
            make(auxiliary=auxiliary)


class Stop(nn.Module):
    """A network that raises an error in its third batch."""

    def __init__(self, error: BaseException):
        super().__init__()
        self.errors = iter([None, None, None, error])  # the tower itself makes the first call

    def forward(self, x):
        if error := next(self.errors):
            raise error
        return x.mean((2, 3)) @ torch.ones(3, DIM)


def test_interrupted_computations_leave_no_files_and_stale_files_are_removed(make, tmp_path):
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error):
            next(iter(make(make_network=lambda error=error: Stop(error())).loader("train")))
        assert folders(tmp_path) == []
    list(make().loader("val"))
    (path,) = folders(tmp_path)
    part = path.with_name(f".{path.name}.part")
    path.rename(part)
    (part / "targets.npy").write_bytes(b"half")
    assert gather(make().loader("val")).x.shape == (N_EXAMPLES["val"], DIM)
    assert [found.name for found in folders(tmp_path)] == [path.name]


def test_damaged_files_are_named(make, tmp_path):
    list(make().loader("val"))
    (folder,) = folders(tmp_path)
    for name in ("features.npy", "targets.npy", "facts.json"):
        path = folder / name
        content = path.read_bytes()
        flipped = content[:-10] + bytes([content[-10] ^ 1]) + content[-9:]
        for damaged in (b'{"crc32": {}}' if name == "facts.json" else flipped, content[:-20], b""):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=f"{folder}") as error:
                list(make().loader("val"))
            assert name == "facts.json" or name in str(error.value)
        path.write_bytes(content)


def test_features_of_other_images_are_rejected(make, tmp_path):
    list(make().loader("val"))
    (folder,) = folders(tmp_path)
    data = make()
    val = data.images.splits["val"]
    data.images.splits["val"] = InMemory(val.inputs[:-1], val.targets[:-1])
    with pytest.raises(DataError, match=rf"{folder.name}.*\[200, {DIM}\], .* \[199, {DIM}\]"):
        list(data.loader("val"))


def test_nan_features_are_rejected(make, tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), DIM), torch.nan)

    with pytest.raises(DataError, match="not finite"):
        list(make(make_network=Broken).loader("val"))
    assert folders(tmp_path) == []


def _compute_slowly(folder, name) -> None:
    def compute(part):
        time.sleep(0.3)
        np.save(part / "features.npy", np.zeros((2, DIM), np.float32))
        np.save(part / "targets.npy", np.zeros(2, np.int64))
        with (folder / "log").open("a") as file:
            file.write(f"{name}\n")
        return {"seconds_per_image": 0.1}

    FeatureCache(folder, "slow", {}, {}).get("train", 0, None, compute)


def test_parallel_processes_compute_once(tmp_path):
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_compute_slowly, args=(tmp_path, str(i))) for i in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().splitlines()) == 1
