"""What goes wrong outside of the code ends with an error that names the setting to change."""

import pytest
from helpers.tiny import CLASSICAL, DIGITS, call, compose, main_command, paths, run
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from utils.cluster.sweep import NONE_DONE
from utils.configs.composing import ConfigError
from utils.runs.experiment_status import MEND
from utils.runs.identity import STAGES
from utils.runs.run import BEST, find_run
from utils.runs.status_file import read_job
from utils.training import building, fitting, stages


@pytest.mark.parametrize("name", ["results", "pretrained"])
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, name):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=rf"paths\.{name}=.*blocked"):
        run(tmp_path, f"paths.{name}={tmp_path}/blocked")
    with pytest.raises(OSError, match=rf"paths\.{name}=.*blocked/inside"):
        run(tmp_path, f"paths.{name}={tmp_path}/blocked/inside")


def test_no_gpu_is_an_error_only_if_one_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"trainer\.accelerator=gpu.*auto or cpu"):
        run(tmp_path, "trainer.accelerator=gpu")
    assert building.pick_device(compose(tmp_path, "trainer.accelerator=auto")).type == "cpu"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data_feat.kwargs.equivalence=[flip]", "rotation"),
        ("featurizer.loss.beta_anneal=slow", "linear"),
        ("encoder.kwargs.activation=relu", "unknown activation"),
        ("trainer.precision=31", "31"),
        ("finetune.frozen=[nothing]", "nothing"),
    ],
)
def test_unknown_names_end_with_those_there_are(tmp_path, override, message):
    with pytest.raises(Exception, match=message):
        run(tmp_path, override, base=DIGITS)
    cfg = compose(tmp_path, override, base=DIGITS)
    assert find_run(cfg, "featurizer").status()["state"] == "failed"


def test_what_is_wrong_with_a_part_is_one_line_that_names_it(tmp_path):
    setting = "encoder.kwargs.activation=relu"
    with pytest.raises(InstantiationException):
        run(tmp_path, setting, base=DIGITS)
    status = find_run(compose(tmp_path, setting, base=DIGITS), "featurizer").status()
    assert status["error"].startswith("featurizer.kwargs.p_ZlX: ValueError: unknown activation")
    assert "\n" not in status["error"] and "Traceback" in status["traceback"]


@pytest.mark.parametrize("name", ["max_epochs", "check_val_every_n_epoch"])
@pytest.mark.parametrize("part", ["trainer", "trainer_pred"])
@pytest.mark.parametrize("value", ["-3", "0", "null"])
def test_a_training_has_an_epoch(tmp_path, part, name, value):
    message = rf"^{part}\.{name} is {value.replace('null', 'None')}, expected at least 1$"
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, f"{part}.{name}={value}")
    assert not list(tmp_path.rglob("status.json"))


def test_unknown_figures_end_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "fit", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ValueError, match="codebook_plot"):
        run(tmp_path, "figures.names=[codebok_plot]")
    with pytest.raises(ValueError, match="bw_image"):
        run(tmp_path, "figures.names=[reconstruct_image_plot]")
    with pytest.raises(ValueError, match="no decoder"):
        run(tmp_path, "figures.names=[latent_traversals_plot_1d]", "distortion=BINCE", base=DIGITS)


def test_images_have_a_codec_and_points_have_none(tmp_path):
    overrides = ["data@data_feat=banana_rot", "featurizer=png"]
    with pytest.raises(Exception, match="channels"):
        run(tmp_path, base=["logger=none", *overrides])
    assert run(tmp_path, "featurizer=png", "is_only_feat=true", base=CLASSICAL)


def test_the_disk_may_be_full(tmp_path, monkeypatch):
    def full(self, payload, n_examples):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lossyless.container.ContainerWriter.add", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    cfg = compose(tmp_path)
    states = [find_run(cfg, stage).status()["state"] for stage in STAGES]
    assert states == ["done", "failed", "new"]
    assert not list((tmp_path / "pretrained").rglob("*.lossyless*"))
    run(tmp_path)
    assert find_run(cfg, "predictor").status()["state"] == "done"


def test_a_checkpoint_that_is_cut_short_is_an_error_not_a_result(tmp_path):
    run(tmp_path, "is_only_feat=true")
    cfg = compose(tmp_path)
    path = find_run(cfg, "featurizer").work / BEST
    path.write_bytes(path.read_bytes()[:1000])
    OmegaConf.resolve(cfg)
    with pytest.raises(Exception):  # noqa: B017 torch raises several kinds
        stages.communicate(cfg)
    assert find_run(cfg, "communication").status()["state"] == "failed"


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_ends_at_once(tmp_path):
    (tmp_path / "file").touch()
    done = call(*main_command(tmp_path, f"paths.results={tmp_path}/file"))
    assert done.returncode == 2 and "paths.results" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_error_that_says_what_to_do_comes_without_a_traceback(tmp_path):
    done = call(*main_command(tmp_path, "on_failed=ignore"))
    assert done.returncode == NONE_DONE and "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("on_failed") >= 1 and MEND in done.stdout
    assert "HYDRA_FULL_ERROR" not in done.stderr
    (job,) = map(read_job, tmp_path.glob("outputs/*/*/0"))
    assert "Traceback" in job["traceback"] and job["state"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["sead=1"], ["distortion=VCI"], ["experiment=nope"]])
def test_a_misspelt_command_line_ends_at_once_without_a_traceback(tmp_path, overrides):
    done = call(*main_command(tmp_path, *overrides, *paths(tmp_path)))
    assert done.returncode == 2 and "Configuration error" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
