"""Full-size experiments use the settings of the official scripts, except for stated reasons."""

import pytest

from utils.aggregation import paper_comparison, paper_settings
from utils.aggregation.experiment import Experiment
from utils.configs.composing import compose_config
from utils.configs.overrides import CONF_DIR

TABLES = sorted(paper_settings.published_settings())
# Experiments of our own.
OURS = ("digits_", "mobilenet_", "none", "ssl_towers_", "test", "clip_download", "clip_fewer_bits")


def test_all_differences_from_the_official_scripts_have_a_reason_and_no_reason_is_stale():
    unexplained, stale = [], []
    for name, published in paper_settings.published_settings().items():
        found = paper_settings.differences(name)
        unexplained += [f"{name}: {d}" for d in found if d.reason is None]
        stated = published.get("differs", {}).keys()
        stale += [f"{name}: {key}" for key in stated - {d.key for d in found}]
    assert unexplained == [] and stale == []


def test_every_experiment_of_the_paper_has_a_table():
    experiments = {file.stem for file in CONF_DIR.glob("experiment/*.yaml")}
    of_paper = {e for e in experiments if not e.startswith(OURS)} | {"test_mnist"}
    tables = {name for name in TABLES if "=" not in name}
    assert of_paper == tables, "an experiment that is not the paper's belongs in OURS"


@pytest.mark.parametrize(
    ("official", "found"),
    [
        ({"settings": {"seed": 1}}, ["seed: 1, here 123: no reason given"]),
        ({"settings": {"seed": 123}}, []),
        ({"settings": {"nothing.like.it": 1}}, ["nothing.like.it: 1, here absent"]),
        ({"settings": {"parameters.encoder": 1}}, ["parameters.encoder: 1, here 1056770"]),
        ({"sweep": {"distortion": ["VIC", "VAE"]}}, []),
        ({"sweep": {"distortion": ["VIC"]}}, ["sweep.distortion: ['VIC'], here ['VAE', 'VIC']"]),
        ({"sweep": {}}, ["sweep.distortion: absent"]),
        ({"jobs": {"seed=2": {"seed": 1}}}, ["seed (seed=2): 1, here 2"]),
        ({"settings": {"seed": 1}, "differs": {"seed": "why"}}, ["seed: 1, here 123: why"]),
    ],
)
def test_differences_are_found(official, found, monkeypatch):
    monkeypatch.setattr(paper_settings, "published_settings", lambda: {"banana_viz_VIC": official})
    differences = paper_settings.differences("banana_viz_VIC")
    assert [str(d)[: len(text)] for d, text in zip(differences, found, strict=True)] == found


def test_changed_settings_of_runs_are_found():
    job = ["experiment=banana_viz_VIC", "distortion=VAE"]
    changed = [*job, "encoder.kwargs.hid_dim=16", "data_feat.kwargs.n_train=2048"]
    assert paper_settings.changes("banana_viz_VIC", [compose_config(job)]) == []
    found = paper_settings.changes("banana_viz_VIC", [compose_config(c) for c in (job, changed)])
    assert len(found) == 3 and {line.split(":")[0].strip() for line in found} == {
        "encoder.kwargs.hid_dim",
        "data_feat.kwargs.n_train",
        "parameters.encoder",
    }


def test_differences_are_printed_with_their_reasons(tmp_path, capsys):
    experiment = Experiment(tmp_path / "exp_GalaxyZoo_neurips_table_final")
    paper_comparison.compare_to_paper(experiment, [experiment.name])
    printed = capsys.readouterr().out
    assert printed.count("differ from the official ones") == 4
    assert "communication.n_copies: 100, here 2: predictors are" in printed
