"""Command lines to configs: errors, sweeps, modes, every experiment, every option."""

import functools
import sys
from functools import cache
from itertools import product, zip_longest
from pathlib import Path

import pytest
import torch
from helpers.tiny import BANANA, DIGITS, compose, paths
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

import main
from lossyless.vector_codecs import VectorCodec
from utils.cluster import sweep
from utils.configs.checks import ConfigError, is_network
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import CONF_DIR
from utils.data.images import ImageDataModule
from utils.training import building

MODES = sorted(file.stem for file in CONF_DIR.glob("mode/*.yaml"))
OPTIONS = sorted(
    (folder.name, file.stem)
    for folder in CONF_DIR.iterdir()
    if folder.is_dir() and folder.name != "experiment"
    for file in folder.glob("*.yaml")
)
PLACES = {
    "data": ("data_feat", "data_pred"),
    "architecture": ("encoder", "decoder", "projector", "online", "predictor"),
    "optimizer": ("optimizer_feat", "optimizer_online", "optimizer_pred"),
    "scheduler": ("scheduler_feat", "scheduler_online", "scheduler_pred"),
    "checkpoint": ("checkpoint_feat", "checkpoint_pred"),
}
# groups whose options say nothing of other groups: one of each composes together
TOGETHER = {*PLACES, "rate", "distortion", "finetune", "logger", "slurm"}


def options(group: str) -> list[str]:
    return [name for found, name in OPTIONS if found == group]


NETWORKS = [
    name
    for name in options("architecture")
    if is_network(OmegaConf.load(CONF_DIR / "architecture" / f"{name}.yaml"))
]


def rows_of_options() -> list[list[tuple[str, str]]]:
    """All options, in as few lists as can be composed at once: the n-th of each group together."""
    columns = [[(group, name) for name in options(group)] for group in sorted(TOGETHER)]
    together = [[one for one in row if one is not None] for row in zip_longest(*columns)]
    return together + [[one] for one in OPTIONS if one[0] not in TOGETHER]


ROWS = rows_of_options()


@cache
def with_options(*chosen: tuple[str, str]) -> DictConfig:
    """Options of several groups, each in all its places; not to be changed."""
    places = [(group, place, name) for group, name in chosen for place in PLACES.get(group, [None])]
    return compose_config([f"{g}@{p}={name}" if p else f"{g}={name}" for g, p, name in places])


def with_option(group: str, name: str) -> DictConfig:
    """A config with an option in all its places, among options of other groups; a copy."""
    (row,) = [row for row in ROWS if (group, name) in row]
    return with_options(*row).copy()


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
def test_a_value_of_another_kind_is_refused(override, found):
    with pytest.raises(ConfigError) as error:
        compose_config(["experiment=banana_viz_VIC", "hypopt=optuna", override])
    key = override.lstrip("+").split("=")[0]
    assert key in str(error.value) and found in str(error.value)


def test_values_of_compatible_kinds_are_accepted():
    compose_config(
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
        "data_feat.kwargs.equivalence=[rotation],[rotaton,scale]",
        "data_pred.kwargs.val_equivalence=null,[scales]",
        "data_feat.kwargs.equivalence=[rotation] data@data_feat=banana_rot",  # one name
        "data_pred.kwargs.equivalence=rotaton data@data_feat=banana_rot",
    ],
)
def test_the_command_line_fails_before_any_job(monkeypatch, tmp_path, capsys, wrong):
    monkeypatch.setattr(sys, "argv", ["main.py", *wrong.split(), *paths(tmp_path)])
    with pytest.raises(SystemExit) as error:
        sweep.run(lambda cfg: pytest.fail("a job was started"))
    assert error.value.code == 2 and not list(tmp_path.iterdir())
    assert wrong.split("=")[0] in capsys.readouterr().err


def test_known_augmentations_are_accepted(tmp_path):
    for overrides in (
        ["data_feat.kwargs.equivalence=['rotation'],[scale--,label]", "data@data_feat=digits"],
        ["data_pred.kwargs.equivalence=rotation,null", "data@data_feat=banana_rot"],
    ):
        sweep.check_command_line([*overrides, *paths(tmp_path)])


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
    assert values(found)["encoder.z_dim"] == "64"  # no part of an architecture
    assert "architecture@encoder=cnn" not in found
    assert "distortion.factor_beta" not in values(expand([*quick, "distortion=VIC"]))


def test_other_places_and_settings_of_a_chosen_option_are_still_swept():
    found = values(expand(["experiment=digits_viz_VIC", "architecture@encoder=cnn"]))
    assert found["architecture@predictor"] == "linear,mlp_small"
    found = values(expand(["experiment=banana_RD", "featurizer=neural_rec"]))
    assert "featurizer.loss.beta" in found


SEARCH = "experiment=GalaxyZoo_neurips_final_jpeg"


def test_the_space_of_a_search_is_handed_on_as_it_is_written():
    found = values(expand([SEARCH]))
    assert found["featurizer.kwargs.quality"] == "choice(1, 2, 3, 5, 10, 20, 50, 70, 95)"
    assert found["optimizer_pred.kwargs.lr"] == "tag(log, interval(1e-4, 1e-3))"
    assert found["seed"] == "choice(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"


def test_the_command_line_narrows_the_space_of_a_search():
    for chosen in (
        "optimizer_pred.kwargs.lr=1e-3",
        "optimizer_pred.kwargs.lr=interval(1e-5, 1e-4)",
    ):
        found = expand([SEARCH, chosen])
        assert [o for o in found if o.startswith("optimizer_pred.kwargs.lr")] == [chosen]


def test_of_a_search_the_first_choice_composes_and_intervals_are_left_out():
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


def call_main(monkeypatch, *arguments: str) -> list[DictConfig]:
    """The configs of the jobs that `python main.py *arguments` starts."""
    configs = []

    @functools.wraps(main.main)  # Hydra asks for the attributes of a function
    def noting(cfg):
        configs.append(cfg)

    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # which Hydra sets for good
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


# --- clusters

CLUSTERS = sorted({*options("slurm")} - {"none", "local"})


def slurm_options(*overrides: str) -> dict:
    return OmegaConf.to_container(compose_config(overrides), resolve=True)["slurm"]


def test_a_cluster_is_asked_for_what_the_job_needs():
    for cluster in CLUSTERS:
        found = slurm_options(f"slurm={cluster}", "timeout_min=77", "trainer.devices=2")
        assert found["name"] == cluster and found["executor"] == "slurm"
        assert (found["timeout_min"], found["nodes"], found["tasks_per_node"]) == (77, 1, 2)
        assert found["gpus_per_node"] == (None if cluster == "single_node" else 2)
        assert isinstance(found["mem_gb"], int) and found["max_num_timeout"] > 0
        on_cpu = slurm_options(f"slurm={cluster}", "mode=quick", "trainer.accelerator=cpu")
        assert on_cpu["gpus_per_node"] is None


def test_short_trials_go_to_the_debug_partition_if_there_is_one():
    for overrides, partition in (
        (["slurm=single_node"], "local"),
        (["slurm=single_node", "mode=dev"], "debug"),
        (["slurm=single_node", "mode=dev", "slurm.partition=urgent"], "urgent"),
        (["slurm=vector", "mode=dev"], "t4v2"),  # without a debug partition
        (["slurm=learnfair", "mode=dev"], "dev"),
    ):
        assert slurm_options(*overrides)["partition"] == partition
    usual, deadline = slurm_options("slurm=vector"), slurm_options("slurm=vector_deadline")
    differing = {key for key in usual if usual[key] != deadline[key]}
    assert differing == {"name", "qos"} and deadline["qos"] == "deadline"


# --- what depends on other choices


@pytest.mark.parametrize(("data", "side"), [("mnist", 2), ("stl10", 8), ("galaxy256", 16)])
def test_the_spatial_rate_knows_the_latent_side_of_the_encoder(data, side):
    cfg = compose_config([f"data@data_feat={data}", "rate=H_spatial", "architecture@encoder=balle"])
    assert cfg.rate.kwargs.latent_side == side


# --- every file of conf/


@pytest.mark.filterwarnings("error")
def test_every_mode_composes():
    for experiment, mode in product(("banana_RD", "GalaxyZoo_neurips_final_BINCE"), MODES):
        cfg = compose_config([f"experiment={experiment}", f"mode={mode}"])
        OmegaConf.resolve(cfg)
        assert cfg.mode_name == mode and cfg.experiment_name == cfg.mode_prefix + cfg.experiment


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ",".join(f"{g}={o}" for g, o in row))
@pytest.mark.filterwarnings("error")
def test_every_option_composes_without_warnings_and_says_its_name(row):
    cfg = with_options(*row)
    for group, option in row:
        for node in [cfg[place] for place in PLACES.get(group, ())] or [cfg.get(group)]:
            name = option if node is None else node.get("name", option)
            # optimisers to be tuned add what they are tuned to
            assert name == option or name.startswith(f"{option}_lr"), f"{group}={option}"


@pytest.mark.parametrize("name", NETWORKS)
def test_architectures_can_be_built(name):
    image, vector = (1, 16, 16), (4,)
    to_vectors = ("cnn", "balle", "resnet18", "resnet50")
    to_images = ("cnn_decoder", "balle_decoder")
    in_shape = image if name in to_vectors else vector
    out_shape = image if name in to_images else vector
    arch = instantiate(with_option("architecture", name).encoder.kwargs)
    assert arch(in_shape, out_shape)(torch.rand(2, *in_shape)).shape == (2, *out_shape)


@pytest.mark.parametrize("name", options("optimizer"))
def test_optimizers_can_be_built(name):
    kwargs = with_option("optimizer", name).optimizer_pred.kwargs
    optimizer = instantiate(kwargs)([torch.nn.Parameter(torch.ones(2))])
    factor = 100 if name == "SGD_likeadam" else 1
    assert optimizer.param_groups[0]["lr"] == factor * kwargs.lr
    assert optimizer.param_groups[0]["weight_decay"] == kwargs.weight_decay


@pytest.mark.parametrize("name", options("scheduler"))
def test_schedulers_can_be_built(name):
    schedule = instantiate(with_option("scheduler", name).scheduler_pred.kwargs)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0)
    assert (schedule is None) == (name == "none")
    assert schedule is None or schedule(optimizer, 10).optimizer is optimizer


@cache
def digits_with(choice: str) -> DictConfig:
    return compose(Path("unused"), choice, base=DIGITS)


@pytest.mark.parametrize("rate", options("rate"))
@pytest.mark.parametrize("distortion", options("distortion"))
def test_every_distortion_goes_with_every_rate(distortion, rate):
    cfg = digits_with(f"distortion={distortion}").copy()
    cfg.rate = digits_with(f"rate={rate}").rate
    if rate == "H_spatial":
        cfg.rate.kwargs.latent_side = 2  # which z_dim=4 fills
    OmegaConf.resolve(cfg)
    compressor = building.build_compressor(cfg)
    assert cfg.rate.name == rate and compressor.rate.family == cfg.rate.family
    compressor.rate.fit_transform(torch.rand(8, 4))
    assert compressor.eval()(torch.rand(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize("featurizer", options("featurizer"))
def test_every_featurizer_can_be_built(featurizer):
    is_on_features = any(part in featurizer for part in ("lossyZ", "freeze", "features"))
    settings = [o for o in DIGITS if not (is_on_features and o.startswith("encoder.kwargs"))]
    settings += ["featurizer.kwargs.n_components=2"] * (featurizer == "features_pca")
    cfg = compose(Path("unused"), f"featurizer={featurizer}", base=settings)
    OmegaConf.resolve(cfg)
    compressor = building.build_compressor(cfg)
    x = torch.rand(2, 4) if is_on_features else torch.rand(2, 1, 8, 8)
    if isinstance(compressor, VectorCodec):
        compressor.fit(x)
    received = compressor.eval()(x)
    is_vector = is_on_features or featurizer == "neural_feat"
    assert received.shape == ((2, 4) if is_vector else (2, 1, 8, 8))


@pytest.mark.parametrize("data", options("data"))
def test_facts_of_the_data_are_those_of_the_class(data, monkeypatch):
    cfg = with_option("data", data)
    if "banana" not in data and data != "digits":  # tests of data sets check the length of others
        target = get_object(cfg.data_feat.kwargs._target_)
        cls = target if isinstance(target, type) else ImageDataModule
        monkeypatch.setattr(cls, "n_examples", lambda self, split: cfg.data_feat.length)
    for place in ("data_feat", "data_pred"):
        module = building.build_data(cfg, place, "none")  # which compares the facts
        assert cfg[place].length == module.n_examples("train")


@pytest.mark.parametrize(
    "fact", ["shape=[3]", "kind=bw_image", "n_outputs=7", "task=classification"]
)
def test_a_wrong_fact_is_named_with_its_file(fact):
    cfg = compose_config([*BANANA, f"data_feat.{fact}"])
    OmegaConf.resolve(cfg)
    with pytest.raises(ValueError, match=r"conf/data/banana_rot.yaml says " + fact.split("=")[0]):
        building.build_data(cfg, "data_feat", "none")


def test_finetune_names_modules_that_exist():
    cfg = compose_config([*BANANA, "finetune=freezer"])
    OmegaConf.resolve(cfg)
    compressor = building.build_compressor(cfg)
    assert all(compressor.get_submodule(name) is not None for name in cfg.finetune.frozen)
