"""Invalid settings, full disks and damaged files end a run with an error that names them."""

import importlib
import os
import re

import pytest
from helpers.tiny import CLASSICAL, DIGITS, compose, run

import utils
from utils.runs.run import find_run
from utils.training import building, fitting


def test_a_folder_that_is_not_writable_is_named(tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    for name, folder in (("results", "blocked"), ("pretrained", "blocked/inside")):
        with pytest.raises(OSError, match=rf"paths\.{name}=.*{folder}"):
            run(tmp_path, f"paths.{name}={tmp_path}/{folder}")


def test_a_missing_gpu_is_an_error_only_if_one_is_requested(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"trainer\.accelerator=gpu.*auto or cpu"):
        run(tmp_path, "trainer.accelerator=gpu")
    assert building.pick_device(compose(tmp_path, "trainer.accelerator=auto")).type == "cpu"


def test_the_status_names_unknown_options(tmp_path):
    for override, error in (
        ("data_feat.kwargs.equivalence=[flip]", "rotation"),
        ("encoder.kwargs.activation=relu", "featurizer.kwargs.p_ZlX: ValueError: .*activation"),
        ("trainer.precision=31", "31"),
        ("finetune.frozen=[nothing]", "nothing"),
    ):
        with pytest.raises(Exception, match=error.rpartition(": ")[2]):
            run(tmp_path, override, base=DIGITS)
        status = find_run(compose(tmp_path, override, base=DIGITS), "featurizer").status()
        assert status["state"] == "failed" and "Traceback" in status["traceback"]
        assert re.search(error, status["error"])


def test_unknown_figures_end_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "fit", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ValueError, match="codebook_plot"):
        run(tmp_path, "figures.names=[codebok_plot]")
    with pytest.raises(ValueError, match="not images"):
        run(tmp_path, "figures.names=[reconstruct_image_plot]")
    with pytest.raises(ValueError, match="no decoder"):
        run(tmp_path, "figures.names=[latent_traversals_plot_1d]", "distortion=BINCE", base=DIGITS)


def test_a_backend_of_figures_that_is_not_installed_is_replaced(monkeypatch):
    """A notebook kernel exports its backend even to environments that lack it."""
    for given, used in (
        ("module://gone.backend", "Agg"),
        ("module://matplotlib.backends.backend_svg", "module://matplotlib.backends.backend_svg"),
        ("svg", "svg"),
    ):
        monkeypatch.setenv("MPLBACKEND", given)
        importlib.reload(utils)
        assert os.environ["MPLBACKEND"] == used


def test_images_have_a_codec_and_points_have_none(tmp_path):
    overrides = ["data@data_feat=banana_rot", "featurizer=png"]
    with pytest.raises(Exception, match="channels"):
        run(tmp_path, base=["logger=none", *overrides])
    assert run(tmp_path, "featurizer=png", "is_only_feat=true", base=CLASSICAL)
