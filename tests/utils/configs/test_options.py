"""Every option in conf/ composes and can be built; clusters are asked for what jobs need."""

import inspect
from functools import cache
from itertools import product, zip_longest
from pathlib import Path

import pytest
import torch
from helpers.tiny import BANANA, DIGITS, compose
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from lossyless.vector_codecs import VectorCodec
from utils.configs.checks import expected_kind, is_network
from utils.configs.composing import compose_config
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
# groups whose options do not set those of other groups, so that one of each can be composed at once
TOGETHER = {*PLACES, "rate", "distortion", "finetune", "logger", "slurm"}


def options(group: str) -> list[str]:
    return [name for found, name in OPTIONS if found == group]


NETWORKS = [
    name
    for name in options("architecture")
    if is_network(OmegaConf.load(CONF_DIR / "architecture" / f"{name}.yaml"))
]


def rows_of_options() -> list[list[tuple[str, str]]]:
    """All options, in as few lists as possible: the n-th list has the n-th option of each group."""
    columns = [[(group, name) for name in options(group)] for group in sorted(TOGETHER)]
    together = [[one for one in row if one is not None] for row in zip_longest(*columns)]
    return together + [[one] for one in OPTIONS if one[0] not in TOGETHER]


ROWS = rows_of_options()


@cache
def with_options(*chosen: tuple[str, str]) -> DictConfig:
    """A config with options of several groups, each in all its places; do not modify it."""
    places = [(group, place, name) for group, name in chosen for place in PLACES.get(group, [None])]
    return compose_config([f"{g}@{p}={name}" if p else f"{g}={name}" for g, p, name in places])


def with_option(group: str, name: str) -> DictConfig:
    """A copy of a config with an option in all its places, among options of other groups."""
    (row,) = [row for row in ROWS if (group, name) in row]
    return with_options(*row).copy()


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


@pytest.mark.parametrize(("data", "side"), [("mnist", 2), ("stl10", 8), ("galaxy256", 16)])
def test_the_spatial_rate_knows_the_latent_side_of_the_encoder(data, side):
    cfg = compose_config([f"data@data_feat={data}", "rate=H_spatial", "architecture@encoder=balle"])
    assert cfg.rate.kwargs.latent_side == side


# --- every option


@pytest.mark.filterwarnings("error")
def test_every_mode_composes():
    for experiment, mode in product(("banana_RD", "GalaxyZoo_neurips_final_BINCE"), MODES):
        cfg = compose_config([f"experiment={experiment}", f"mode={mode}"])
        OmegaConf.resolve(cfg)
        assert cfg.mode_name == mode and cfg.experiment_name == cfg.mode_prefix + cfg.experiment


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ",".join(f"{g}={o}" for g, o in row))
@pytest.mark.filterwarnings("error")
def test_every_option_composes_without_warnings_and_states_its_name(row):
    cfg = with_options(*row)
    for group, option in row:
        for node in [cfg[place] for place in PLACES.get(group, ())] or [cfg.get(group)]:
            name = option if node is None else node.get("name", option)
            # optimisers for searches add the searched settings
            assert name == option or name.startswith(f"{option}_lr"), f"{group}={option}"


@pytest.mark.parametrize("name", NETWORKS)
def test_architectures_can_be_built(name):
    image, vector = (1, 16, 16), (4,)
    in_shape = image if name in ("cnn", "balle", "resnet18", "resnet50") else vector
    out_shape = image if name in ("cnn_decoder", "balle_decoder") else vector
    arch = instantiate(with_option("architecture", name).encoder.kwargs)
    assert arch(in_shape, out_shape)(torch.rand(2, *in_shape)).shape == (2, *out_shape)


def test_optimizers_and_schedulers_can_be_built():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    for name in options("optimizer"):
        kwargs = with_option("optimizer", name).optimizer_pred.kwargs
        optimizer = instantiate(kwargs)(parameters)
        factor = 100 if name == "SGD_likeadam" else 1
        assert optimizer.param_groups[0]["lr"] == factor * kwargs.lr, name
        assert optimizer.param_groups[0]["weight_decay"] == kwargs.weight_decay, name
    for name in options("scheduler"):
        schedule = instantiate(with_option("scheduler", name).scheduler_pred.kwargs)
        assert (schedule is None) == (name == "none")
        assert schedule is None or schedule(optimizer, 10).optimizer is optimizer, name


@cache
def digits_with(choice: str) -> DictConfig:
    return compose(Path("unused"), choice, base=DIGITS)


@pytest.mark.parametrize("rate", options("rate"))
@pytest.mark.parametrize("distortion", options("distortion"))
def test_every_distortion_works_with_every_rate(distortion, rate):
    cfg = digits_with(f"distortion={distortion}").copy()
    cfg.rate = digits_with(f"rate={rate}").rate
    if rate == "H_spatial":
        cfg.rate.kwargs.latent_side = 2  # which z_dim=4 fills
    OmegaConf.resolve(cfg)
    compressor = building.build_compressor(cfg)
    assert cfg.rate.name == rate and compressor.rate.family == cfg.rate.family
    compressor.rate.fit_transform(torch.rand(8, 4))
    compressor.rate.update()
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
    if "banana" not in data and data != "digits":  # the data sets' own tests check other lengths
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
    with pytest.raises(ValueError, match=r"conf/data/banana_rot.yaml .*" + fact.split("=")[0]):
        building.build_data(cfg, "data_feat", "none")


def test_finetune_names_modules_that_exist():
    cfg = compose_config([*BANANA, "finetune=freezer"])
    OmegaConf.resolve(cfg)
    compressor = building.build_compressor(cfg)
    assert all(compressor.get_submodule(name) is not None for name in cfg.finetune.frozen)


def test_arguments_that_are_numbers_can_be_fractions():
    """A whole number in a file, 0 instead of 0.0, would refuse them."""
    for group, name in OPTIONS:
        file = OmegaConf.load(CONF_DIR / group / f"{name}.yaml")
        kwargs = (file.get("featurizer") or file).get("kwargs") or {}
        if "_target_" in kwargs:
            parameters = inspect.signature(get_object(kwargs._target_)).parameters
            for key in kwargs.keys() & parameters.keys():
                if parameters[key].annotation in (float, float | None):
                    assert expected_kind(key, kwargs._get_node(key), 0.5) is None, (name, key)
