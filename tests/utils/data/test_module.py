"""Splits, seeds and loaders are the same for every data set."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from helpers.batches import gather

from lossyless.base import Batch
from utils.data.module import (
    AUXILIARIES,
    DataModule,
    SharedLoader,
    derive_seed,
    spawn_generator,
)


class ToyDataModule(DataModule):
    """The numbers 0..n-1, plus noise in place of augmentation."""

    shape, kind, task, n_outputs = (1,), "vector", "classification", 2

    def n_examples(self, split):
        return {"train": 10, "val": 7, "test": 7}[split]

    def make_batches(self, split, *, batch_size, is_shuffled, generator):
        n = self.n_examples(split)
        order = torch.randperm(n, generator=generator) if is_shuffled else torch.arange(n)
        for indices in order.split(batch_size):
            noise = torch.rand(len(indices), 1, generator=generator)
            yield Batch(indices[:, None] + 0.5 * noise, indices)


def toy(**kwargs):
    return ToyDataModule(**({"batch_size": 4, "eval_batch_size": 4} | kwargs))


def test_training_drops_a_last_batch_of_one_example_unless_it_is_the_only_one():
    for batch_size, sizes in {4: [4, 4, 2], 5: [5, 5], 9: [9], 10: [10], 11: [10]}.items():
        loader = toy(batch_size=batch_size).loader("train")
        assert [len(batch.x) for batch in loader] == sizes
        assert (len(loader), loader.n_examples) == (len(sizes), sum(sizes))
        assert loader.batch_size == batch_size


def test_unshuffled_epochs_are_augmented_copies_in_order():
    for split, n in (("train", 10), ("val", 7), ("test", 7)):
        loader = toy().loader(split, shuffle=False)
        assert torch.equal(gather(loader).y, torch.arange(n))
        assert loader.n_examples == n and len(loader) == len(list(loader))
    # unshuffled epochs are different augmented copies in the same order
    x, other = (gather(toy().loader("train", epoch=k, shuffle=False)).x for k in range(2))
    assert not torch.equal(x, other)
    shuffled = gather(toy(batch_size=5).loader("train")).y
    assert not torch.equal(shuffled, torch.arange(10))
    assert torch.equal(shuffled.sort().values, torch.arange(10))


def test_unknown_names_are_rejected_with_the_alternatives():
    with pytest.raises(ValueError, match="split: .*'valid'.* train, val, test"):
        toy().loader("valid")
    with pytest.raises(ValueError, match=f"auxiliary: .*'inputs'.*{AUXILIARIES[-1]}"):
        toy(auxiliary="inputs")


def test_home_and_variables_in_the_data_folder_are_expanded(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    for data_dir, expected in {
        "$SCRATCH/data": "/scratch/me/data",
        "${SCRATCH}/data": "/scratch/me/data",
        "~/data": "/home/me/data",
        "data": "data",
    }.items():
        assert toy(data_dir=data_dir).data_dir == expected


def test_derived_seeds_are_stable_and_distinct():
    assert derive_seed(123, "train", 0) == 3780446146362232825
    seeds = {derive_seed(s, split, e) for s in range(9) for split in ("a", "b") for e in range(9)}
    assert len(seeds) == 9 * 2 * 9
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_spawning_a_generator_does_not_advance_its_parent():
    generator, twin = (torch.Generator().manual_seed(1) for _ in range(2))
    spawned = torch.rand(5, generator=spawn_generator(generator, "positive"))
    drawn = torch.rand(5, generator=generator)
    assert torch.equal(drawn, torch.rand(5, generator=twin))
    assert not torch.equal(drawn, spawned)


class Recorder(pl.LightningModule):
    """Records x of every training batch, by epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).append(batch.x)
        return self.weight * batch.x.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, n_epochs, folder, **kwargs):
    model = Recorder()
    pl.Trainer(
        max_epochs=n_epochs,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        callbacks=[pl.callbacks.ModelCheckpoint(folder, save_last=True)],
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    ).fit(model, datamodule=data, ckpt_path=folder / "last.ckpt" if n_epochs == 3 else None)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_trainer_gets_new_batches_in_each_epoch_and_after_resuming(tmp_path):
    data = toy()
    reload = {"reload_dataloaders_every_n_epochs": 1}
    seen = fit(data, 2, tmp_path, **reload).seen | fit(data, 3, tmp_path, **reload).seen
    assert sorted(seen) == [0, 1, 2]
    for epoch, batches in seen.items():
        assert torch.equal(torch.cat(batches), gather(data.loader("train", epoch=epoch)).x)
    with pytest.raises(ValueError, match="reload_dataloaders_every_n_epochs=1"):
        fit(data, 1, tmp_path)


# --- several processes


@pytest.mark.parametrize("n_processes", [1, 2, 4])
def test_shares_together_are_the_batches_of_one_process(n_processes):
    loader = toy().loader("train")  # batches of 4, 4, 2
    shares = [SharedLoader(loader, rank, n_processes) for rank in range(n_processes)]
    (n_batches,) = {len(share) for share in shares}
    assert n_batches == (2 if n_processes == 4 else 3)  # a share is never empty
    for whole, *parts in zip(list(loader)[:n_batches], *shares, strict=True):
        assert torch.equal(torch.cat([part.x for part in parts]), whole.x)
        assert torch.equal(torch.cat([part.y for part in parts]), whole.y)
        assert {len(part.x) for part in parts} == {len(whole.x) // n_processes}
        assert all(part.aux is None for part in parts)


def test_indivisible_last_batches_are_truncated_and_indivisible_full_batches_rejected():
    loader = toy(batch_size=6).loader("train")  # batches of 6, 4
    shares = [list(SharedLoader(loader, rank, 3)) for rank in range(3)]
    (_, last) = loader
    assert torch.equal(torch.cat([share[1].x for share in shares]), last.x[:3])
    for batch_size, size in ((4, 4), (100, 10)):
        loader = toy(batch_size=batch_size).loader("train")
        with pytest.raises(ValueError, match=f"batch of {size} examples .* by 3 devices"):
            SharedLoader(loader, 0, 3)


def test_only_training_batches_are_shared():
    data = toy()
    data.trainer = SimpleNamespace(
        reload_dataloaders_every_n_epochs=1,
        overfit_batches=0,
        current_epoch=1,
        world_size=2,
        global_rank=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    (first, *_), (whole, *_) = data.train_dataloader(), data.loader("train", epoch=1)
    assert torch.equal(first.y, whole.y[2:])
    assert torch.equal(gather(data.val_dataloader()).x, gather(data.loader("val")).x)
    data.trainer.overfit_batches, data.trainer.world_size = 1, 1  # always the first epoch
    assert torch.equal(gather(data.train_dataloader()).x, gather(data.loader("train")).x)
