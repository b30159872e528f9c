"""From command lines to configs: errors, sweeps, modes, help."""

import functools
import shutil
import sys

import pytest
from helpers.tiny import BANANA, paths
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import main
from utils.cluster import sweep
from utils.configs import composing
from utils.configs.checks import LISTS, ConfigError
from utils.configs.composing import compose_config, expand


def values(overrides: list[str]) -> dict[str, str]:
    return dict(override.split("=", 1) for override in overrides)


# --- errors


@pytest.mark.parametrize(
    ("override", "alternatives"),
    [
        ("sead=1", ["seed"]),
        ("trainer.max_epoch=3", ["trainer.max_epoch", "max_epochs"]),
        ("optimizer_feat.kwargs.learning_rate=1", ["lr", "weight_decay"]),
        ("distortion=VCI", ["VIC", "BINCE", "VAE"]),
        ("experiment=banana", ["banana_viz_VIC", "banana_RD"]),
        ("architecture@encodr=cnn", ["encoder"]),
        ("architecture@encoder=cnnn", ["cnn", "mlp_small"]),
        ("seed.deeper=1", ["seed"]),
        ("data_feat.kwargs._target_=mine.Digits", ["data_feat.kwargs._target_", "conf/"]),
        ("seed", []),
        ("seed=[1", []),
        ("=3", []),
    ],
)
def test_invalid_overrides_are_errors_that_name_alternatives(override, alternatives):
    with pytest.raises(ConfigError) as error:
        compose_config([override])
    assert all(name in str(error.value) for name in alternatives)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("featurizer.loss.beta=0.1,abc", "number (0.07), not 'abc'"),
        ("++featurizer.loss.beta=abc", "number (0.07), not 'abc'"),
        ("featurizer.loss.beta=choice(1,true)", "not true"),
        ("featurizer.loss.beta=[0.1]", "not [0.1]"),
        ("encoder.z_dim=2.5", "encoder.z_dim is a whole number (2), not 2.5"),
        ("encoder.z_dim=interval(1, 2)", "int(interval(...))"),
        ("trainer.max_epochs=1e3", "not 1000.0"),
        ("is_only_feat=1", "not 1"),
        ("distortion.name=true", "not true"),
        ("hypopt.direction=1", "a list"),
        ("trainer=cpu", "not 'cpu'"),
    ],
)
def test_a_value_of_another_kind_is_rejected(override, found):
    with pytest.raises(ConfigError) as error:
        compose_config(["experiment=banana_viz_VIC", "hypopt=optuna", override])
    key = override.lstrip("+").split("=")[0]
    assert key in str(error.value) and found in str(error.value)


def test_values_of_compatible_kinds_are_accepted():
    cfg = compose_config(
        [
            "experiment=banana_viz_VIC",
            "mode=debug",
            "featurizer.loss.beta=1",  # whole numbers are numbers
            "encoder.z_dim=int(interval(1, 2))",
            "decoder.kwargs.hid_dim='${trainer.max_epochs}'",
            "featurizer.kwargs.online=null",
            "trainer.precision=32",  # an interpolation in the file
            "trainer.limit_val_batches=0.5",  # a whole number in the mode
            "scheduler_feat.kwargs.total_factor=33.3",
            "add_feat=3",
            "goal='3'",
            "monitor_return=[val/pred/loss]",
            "data_feat.kwargs.equivalence=[rotation,x_translation]",  # one name in the file
            "figures.names=codebook_plot",  # several in the file
            "+anything=[1]",
        ]
    )
    assert (cfg.featurizer.loss.beta, cfg.trainer.precision, cfg.anything) == (1, 32, [1])


def test_a_single_text_is_a_list_of_one():
    texts = {key: "a" for key in LISTS} | {"data_feat.kwargs.equivalence": "label"}
    options = ["data@data_feat=digits", "finetune=freezer"]
    cfg = compose_config([*options, *(f"{key}={value}" for key, value in texts.items())])
    assert {key: OmegaConf.select(cfg, key) for key in texts} == {k: [texts[k]] for k in texts}
    points = ["data@data_feat=banana", "data_feat.kwargs.equivalence=rotation"]
    assert compose_config(points).data_feat.kwargs.equivalence == "rotation"


def test_results_are_named_after_mode_and_experiment_by_default():
    quick = ["experiment=banana_viz_VIC", "mode=quick"]
    assert compose_config(quick).experiment_name == "quick_banana_viz_VIC"
    assert compose_config([*quick, "experiment_name=mine"]).experiment_name == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        "sead=1",
        "seed=1,x",
        "trainer.max_epochs=0",
        "trainer_pred.max_epochs=\\",
        "data_feat.kwargs.equivalence=[rotation],[rotaton,scale]",
        "data_pred.kwargs.val_equivalence=null,[scales]",
        "data_feat.kwargs.equivalence=[rotation] data@data_feat=banana_rot",  # one name
        "data_pred.kwargs.equivalence=rotaton data@data_feat=banana_rot",
        "checkpoint_feat.split=nan",
        "checkpoint_pred.split=test",
        "on_failed=ignore",
        "add_pred=${oc.env:NOPE}",
        "mode_name=${oc.env:NOPE}",
        "sweep.seed=${oc.env:NOPE} experiment=banana_RD",
        "trainer.max_epochs=${nope}",
        "optimizer_pred.name=${nope}",
    ],
)
def test_the_command_line_fails_before_any_job(monkeypatch, tmp_path, capsys, wrong):
    monkeypatch.setattr(sys, "argv", ["main.py", *wrong.split(), *paths(tmp_path)])
    with pytest.raises(SystemExit) as error:
        sweep.run(lambda cfg: pytest.fail("a job was started"))
    assert error.value.code == 2 and not list(tmp_path.iterdir())
    assert wrong.split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("content", ["a: [1,", "\ta: 1", "a: \0"])
def test_a_broken_config_file_is_one_line_of_error(monkeypatch, tmp_path, content):
    conf = shutil.copytree(composing.CONF_DIR, tmp_path / "conf")
    (conf / "distortion" / "broken.yaml").write_text(content)
    monkeypatch.setattr(composing, "CONF_DIR", conf)
    with pytest.raises(ConfigError, match=r"^.*distortion/broken\.yaml.*$"):
        compose_config(["distortion=broken"])


def test_known_augmentations_are_accepted(tmp_path):
    for overrides in (
        ["data_feat.kwargs.equivalence=['rotation'],[scale--,label]", "data@data_feat=digits"],
        ["data_pred.kwargs.equivalence=rotation,null", "data@data_feat=banana_rot"],
    ):
        plan = sweep.check_command_line([*overrides, *paths(tmp_path)])
        assert len(plan.jobs) == 2 and set(overrides) <= set(plan.overrides)


# --- sweeps and modes


def test_sweep_and_mode_of_an_experiment_are_added():
    found = values(expand(["experiment=banana_viz_VIC"]))
    assert found == {"experiment": "banana_viz_VIC", "distortion": "VAE,VIC"}
    found = values(expand(["experiment=banana_RD", "mode=quick"]))
    assert found["trainer.max_epochs"] == "4"
    assert found["encoder.kwargs.hid_dim"] == "64"  # of the base
    assert found["seed"] == "1,2,3" and found["featurizer.loss.beta"] == "0.01,0.03,0.1,0.3,1"
    assert found["distortion"] == "VAE,VIC"


def test_the_command_line_wins_over_sweep_and_mode():
    chosen = ["seed=4,5", "++trainer.max_epochs=1", "distortion=BINCE", "encoder.kwargs.hid_dim=8"]
    found = expand(["experiment=banana_RD", "mode=quick", "per_distortion.VAE.z_dim=1", *chosen])
    for override in chosen:
        key = override.split("=")[0].lstrip("+")
        assert [o for o in found if o.lstrip("+").startswith(f"{key}=")] == [override]
    chosen = "data@data_feat=banana_Xtrnslt"
    found = expand(["experiment=banana_viz_VIC_trnslt", chosen])
    assert [o for o in found if o.startswith("data@")] == [chosen]


def test_a_chosen_option_replaces_only_what_the_mode_sets_in_its_file():
    quick = ["experiment=banana_viz_VIC", "mode=quick"]
    found = values(expand([*quick, "architecture@encoder=linear"]))
    assert "encoder.kwargs.hid_dim" not in found  # a linear map has none
    assert found["decoder.kwargs.hid_dim"] == "64"
    found = values(expand([*quick, "optimizer@optimizer_feat=AdamW_lr3e-4_w1e-5"]))
    assert "optimizer_feat.kwargs.lr" not in found
    quick = ["experiment=augmnist_viz_VIC", "mode=quick"]
    found = expand([*quick, "architecture@encoder=resnet18"])
    assert values(found)["encoder.z_dim"] == "64"  # not part of an architecture
    assert "architecture@encoder=cnn" not in found
    assert "distortion.factor_beta" not in values(expand([*quick, "distortion=VIC"]))


def test_a_chosen_option_leaves_the_sweeps_of_other_places_and_settings():
    found = values(expand(["experiment=digits_viz_VIC", "architecture@encoder=cnn"]))
    assert found["architecture@predictor"] == "linear,mlp_small"
    found = values(expand(["experiment=banana_RD", "featurizer=neural_rec"]))
    assert "featurizer.loss.beta" in found


SEARCH = "experiment=GalaxyZoo_neurips_final_jpeg"


def test_the_space_of_a_search_is_passed_on_as_written_and_narrowed_by_the_command_line():
    found = values(expand([SEARCH]))
    assert found["featurizer.kwargs.quality"] == "choice(1, 2, 3, 5, 10, 20, 50, 70, 95)"
    assert found["optimizer_pred.kwargs.lr"] == "tag(log, interval(1e-4, 1e-3))"
    for lr in ("1e-3", "interval(1e-5, 1e-4)"):
        found = values(expand([SEARCH, f"optimizer_pred.kwargs.lr={lr}"]))
        assert found["optimizer_pred.kwargs.lr"] == lr


def test_a_search_composes_with_its_first_choices_and_the_defaults_of_ranges():
    lr = compose_config().optimizer_pred.kwargs.lr
    cfg = compose_config(["seed=choice(3, 4)", "optimizer_pred.kwargs.lr=interval(7, 8)"])
    assert (cfg.seed, cfg.optimizer_pred.kwargs.lr) == (3, lr)
    cfg = compose_config(["distortion=choice(VAE, BINCE)", "seed=range(5, 8)"])
    assert (cfg.distortion.name, cfg.seed) == ("VAE", 123)


def test_unknown_keys_in_the_space_of_a_search_or_an_experiment_are_errors():
    for drawn in ("tag(log, interval(1e-4, 1))", "range(0, 3)", "choice(1, 2)"):
        with pytest.raises(ConfigError, match="optimizer_pred.kwargs.rl.*lr"):
            expand([f"optimizer_pred.kwargs.rl={drawn}"])
    with pytest.raises(ConfigError, match="max_epoch"):
        expand(["experiment=test", "+sweep.trainer_max_epoch=[1,2]"])


@pytest.mark.parametrize(
    ("name", "setting", "alternatives"),
    [
        ("mine1", "sead: 3", "seed"),
        ("mine2", "encoder: {zdim: 3}", "z_dim"),
        ("mine3", "trainer.max_epochs: 3", "nest"),
        ("mine6", "architecture@predictor: linear", "override /architecture@predictor"),
        ("mine7", "rate: H_factorized", "override /rate"),
        ("mine8", "seed: [1, 2]", "whole number"),  # not in `sweep`
        ("mine4", "{per_distortion: {VIC: {mine: 3}}, encoder: {kwargs: {added: 3}}}", None),
        ("mine5", "{defaults: [override /hypopt: optuna], hypopt: {n_trials: 3}}", None),
    ],
)
def test_wrong_settings_in_the_file_of_an_experiment_are_errors(
    monkeypatch, tmp_path, name, setting, alternatives
):
    conf = shutil.copytree(composing.CONF_DIR, tmp_path / "conf")
    (conf / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{setting}\n")
    monkeypatch.setattr(composing, "CONF_DIR", conf)
    check = functools.partial(composing.check_experiment, [f"experiment={name}", "hypopt=none"])
    if alternatives is None:
        check()
    else:
        with pytest.raises(ConfigError, match=f"{name}.yaml.*{alternatives}"):
            check()


def call_main(monkeypatch, *arguments: str) -> list[DictConfig]:
    """The configs of the jobs that `python main.py *arguments` starts."""
    configs = []

    @functools.wraps(main.main)  # Hydra reads the function's attributes
    def noting(cfg):
        configs.append(cfg)

    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # which Hydra sets permanently
    sweep.run(noting)
    return configs


def test_multirun_flag_is_accepted(monkeypatch, tmp_path):
    configs = call_main(monkeypatch, "-m", *BANANA, *paths(tmp_path), "seed=1,2")
    assert [cfg.seed for cfg in configs] == [1, 2]


def test_without_arguments_the_first_line_says_what_is_trained(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (cfg,) = call_main(monkeypatch)
    first = capsys.readouterr().out.splitlines()[0]
    assert all(f" {fact}" in first for fact in (cfg.data_feat.name, cfg.trainer.max_epochs))
    assert "minutes" in first


def test_help_fits_two_screens_and_shows_the_defaults(monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        call_main(monkeypatch, "--help")
    lines = capsys.readouterr().out.splitlines()
    assert not error.value.code and len(lines) < 60
    settings = [
        line.split()[0] for line in lines if line.startswith("  ") and "=" in line.split()[0]
    ]
    assert len(settings) > 10
    cfg = compose_config(settings)  # each is a setting or an option
    assert cfg == compose_config()
