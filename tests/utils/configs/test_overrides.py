"""Overrides: Hydra's grammar, and paths and names that are used as typed."""

from pathlib import Path

import pytest
from helpers.tiny import paths
from omegaconf import OmegaConf

from utils.cluster import sweep
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import to_override_value, values_of


def refused(*overrides: str) -> str:
    """The one-line error of a command line that starts no job."""
    with pytest.raises((ConfigError, OSError)) as error:
        sweep.check_command_line(list(overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_values_survive_the_override_grammar():
    values = [None, True, False, 1e-5, 3, "VAE", [1, 2], {"a": None}, [], "", "1e-3 and more"]
    nodes = OmegaConf.create(values)
    texts = map(to_override_value, nodes)
    cfg = compose_config([f"+note_{i}={text}" for i, text in enumerate(texts)])
    assert [cfg[f"note_{i}"] for i in range(len(values))] == values


@pytest.mark.parametrize("name", ["a,b#c[d=e f:é?g", "{(a", "a'b", "1e3"])
def test_folders_may_have_any_name(tmp_path, name):
    plan = sweep.check_command_line(paths(tmp_path / name))
    assert plan.cfg.paths.outputs == str(tmp_path / name / "outputs") and len(plan.jobs) == 1
    assert plan.results == tmp_path / name / "results" / "exp_none" and plan.results.is_dir()
    assert compose_config(plan.jobs[0]).paths == plan.cfg.paths  # as Hydra composes the job


@pytest.mark.parametrize("setting", ["paths.outputs=a%j", "job_id=b%"])
def test_submitted_jobs_need_a_folder_without_percent(setting, tmp_path):
    others = [path for path in paths(tmp_path) if not path.startswith(setting.split("=")[0])]
    assert "%" in refused("slurm=local", *others, setting.replace("=a", f"={tmp_path}/a"))


def test_the_home_folder_is_expanded_wherever_a_path_stands(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINE", "~/mine")
    monkeypatch.setenv("MOBILENET_V2_WEIGHTS", "~/net.npz")
    overrides = ["paths.data=~/data", "paths.logs=${oc.env:MINE}", "experiment=mobilenet_caltech"]
    cfg = compose_config(overrides)
    assert cfg.paths.data == str(tmp_path / "data") and cfg.paths.logs == str(tmp_path / "mine")
    assert cfg.tower.kwargs.weights == str(tmp_path / "net.npz")
    cfg = compose_config(["paths.pretrained=~", "tower.kwargs.weights=~/a b.npz", overrides[-1]])
    assert cfg.paths.features == str(tmp_path / "features")
    assert cfg.tower.kwargs.weights == str(tmp_path / "a b.npz")


@pytest.mark.parametrize("value", ["", "null", "${oc.env:NOT_SET}"])
def test_a_path_without_folder_is_rejected(value):
    assert "paths.data" in refused(f"paths.data={value}")


@pytest.mark.parametrize("name", ["1e3", "1_2", "true", "null", "007", "[a]", "a b"])
def test_names_are_taken_as_typed(tmp_path, name):
    names = [f"{key}={name}" for key in ("experiment_name", "add_feat", "add_pred")]
    plan = sweep.check_command_line([*paths(tmp_path), *names])
    assert plan.results.name == f"exp_{name}" and str(plan.cfg.compressor_of) == name
    assert (str(plan.cfg.add_feat), str(plan.cfg.add_pred)) == (name, name)
    if name != "null":  # unset
        keys = ("job_id", "goal", "wandb_project", "hypopt.study_name", "export.encoder")
        cfg = compose_config(["hypopt=optuna", *(f"{key}={name}" for key in keys)])
        assert {OmegaConf.select(cfg, key) for key in keys} == {name}


def test_whole_numbers_as_names_keep_the_hashes_of_earlier_runs():
    assert compose_config(["add_feat=12"]).add_feat == 12
    assert values_of("add_feat", expand(["add_feat=1_2,12"])) == ["1_2", 12]


@pytest.mark.parametrize(
    ("key", "name"),
    [("experiment_name", ""), ("compressor_of", "a/b"), ("add_feat", ".."), ("job_id", "'a\nb'")],
)
def test_names_that_cannot_be_folders_are_rejected(tmp_path, key, name):
    assert key in refused(f"{key}={name}", *paths(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("experiment=1e3", "banana_viz_VIC"),
        ("+experiment=test", "experiment=test"),
        ("++rate=H_hyper", "rate=H_hyper"),
        ("+data@data_feat=mnist", "data@data_feat"),
        ("~rate", "rate=..."),
        ("~seed", "seed=..."),
        ("~trainer.max_epochs=200", "trainer.max_epochs=..."),
        ("~data@data_feat", "data@data_feat=..."),
        ("~data_feat.kwargs.no_such", "no_such"),
        ("rate=glob(Q*)", "Q*"),
        ("seed=glob(*)", "seed"),
        ("seed=range(1,2,0)", "range"),
        ("figures.names=#", "figures.names=#"),
    ],
)
def test_overrides_of_unsupported_forms_are_one_line_of_error(override, hint):
    assert hint in refused(override)


def test_overrides_mean_what_they_mean_to_hydra(tmp_path):
    plan = sweep.check_command_line(["rate=glob(H*,exclude=[*klt,*rdo])", *paths(tmp_path)])
    rates = {setting for job in plan.jobs for setting in job if setting.startswith("rate=")}
    assert rates >= {"rate=H_factorized", "rate=H_hyper"} and "rate=H_hyper_klt" not in rates
    assert "margin" not in compose_config(["~data_feat.kwargs.margin"]).data_feat.kwargs
    assert compose_config(["++seed=1", "+new.key=2"]).new.key == 2


def test_the_last_of_repeated_settings_wins(tmp_path):
    last = ["seed=4", "experiment=banana_viz_VIC", "distortion=VIC"]
    plan = sweep.check_command_line(["seed=1,2", "experiment=test", *last, *paths(tmp_path)])
    assert [job[:3] for job in plan.jobs] == [last]
    assert plan.cfg.seed == 4 and Path(plan.results).name == "exp_banana_viz_VIC"
