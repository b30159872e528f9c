"""Every experiment and every mode runs through all stages, on a little data, figures included."""

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from tiny import CLASSICAL, DIGITS, compose, run

import aggregate
from utils.config import CONF_DIR, expand
from utils.plots import FIGURES
from utils.runs import find_run

EXPERIMENTS = sorted(file.stem for file in CONF_DIR.glob("experiment/*.yaml"))
MODES = sorted(file.stem for file in CONF_DIR.glob("mode/*.yaml"))
TINY = ["logger=none", "trainer.accelerator=cpu", "parallel_jobs=64", "trainer.max_epochs=1"]
TINY += ["trainer_pred.max_epochs=1", "communication.n_single=2"]
SIZES = ("n_train=512", "n_eval=128", "batch_size=128")
TINY_BANANA = [f"{place}.kwargs.{s}" for place in ("data_feat", "data_pred") for s in SIZES]
TINY_DIGITS = ["communication.n_copies=1", "trainer.limit_train_batches=2"]


def jobs_of(experiment: str) -> list[list[str]]:
    """The overrides of each job of the experiment's quick sweep."""
    parsed = OverridesParser.create().parse_overrides(
        expand([f"experiment={experiment}", "mode=quick"])
    )
    choices = [
        [f"{o.get_key_element()}={v}" for v in o.sweep_iterator()]
        if o.is_sweep_override()
        else [o.input_line]
        for o in parsed
    ]
    return [list(job) for job in itertools.product(*choices)]


def tiny(job: list[str], folder) -> list[str]:
    is_banana = compose(folder, base=job).data_feat.kind == "vector"
    return [*job, *TINY, *(TINY_BANANA if is_banana else TINY_DIGITS)]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_first_and_last_job_of_an_experiment(experiment, tmp_path):
    jobs = jobs_of(experiment)
    for job in {str(job): job for job in (jobs[0], jobs[-1])}.values():
        base = tiny(job, tmp_path)
        run(tmp_path, base=base)
        cfg = compose(tmp_path, base=base)
        found = find_run(cfg, "featurizer").results
        if cfg.featurizer.is_learned:
            drawn = {file.name.split(" ")[0] for file in found.glob("*.png")}
            expected = {FIGURES[name].file_name.split(" ")[0] for name in cfg.figures.names}
            assert drawn == expected
    aggregate.main([f"experiment={experiment}", "mode=quick", f"paths.results={tmp_path}/results"])
    folder = found.parents[-len(tmp_path.parts) - 2]
    assert (folder / "summary.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_all_jobs_of_an_experiment(experiment, tmp_path):
    jobs = jobs_of(experiment)
    folders = set()
    for job in jobs:
        base = tiny(job, tmp_path)
        run(tmp_path, base=base)
        folders.add(find_run(compose(tmp_path, base=base), "predictor").results)
    assert len(folders) == len(jobs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("base", ["banana", "digits", "png"])
def test_every_mode_runs(mode, base, tmp_path):
    """With as few batches as the data sets of the project have: 4 and 9 an epoch."""
    overrides = {
        "banana": None,
        "digits": [*DIGITS, "data_feat.kwargs.batch_size=128", "data_pred.kwargs.batch_size=128"],
        "png": [*CLASSICAL, "featurizer=png"],
    }[base]
    base = {} if overrides is None else {"base": overrides}
    metrics = run(tmp_path, f"mode={mode}", **base)
    assert metrics["test/comm/n_bits"] > 0 and metrics["test/pred/loss"] >= 0
    results = find_run(compose(tmp_path, f"mode={mode}", **base), "featurizer").results
    assert f"exp_{'' if mode in ('none', 'cpu', 'continue') else mode + '_'}none" in results.parts


def test_overfitting_repeats_the_same_batches(tmp_path, monkeypatch):
    """Otherwise the mode would not show whether a model can learn them by heart."""
    from utils.data.banana import BananaDataModule

    seeds = []
    loader = BananaDataModule.loader

    def noting(self, split, **kwargs):
        found = loader(self, split, **kwargs)
        if split == "train" and kwargs.get("shuffle") is None:
            seeds.append(found.seed)
        return found

    monkeypatch.setattr(BananaDataModule, "loader", noting)
    run(tmp_path, "mode=overfit", "is_only_feat=true", "trainer.max_epochs=3")
    assert len(seeds) >= 3 and len(set(seeds)) == 1


def test_other_modes_see_new_batches_in_every_epoch(tmp_path, monkeypatch):
    from utils.data.banana import BananaDataModule

    epochs = []
    loader = BananaDataModule.loader

    def noting(self, split, *, epoch=0, **kwargs):
        epochs.append((split, epoch))
        return loader(self, split, epoch=epoch, **kwargs)

    monkeypatch.setattr(BananaDataModule, "loader", noting)
    run(tmp_path, "is_only_feat=true", "trainer.max_epochs=3")
    assert [epoch for split, epoch in epochs if split == "train"] == [0, 1, 2]
