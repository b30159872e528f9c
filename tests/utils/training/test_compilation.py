"""Compiled training steps: one graph, the same computation, the same run and checkpoints."""

import pytest
import torch
from helpers.interruptions import in_training
from helpers.tiny import BANANA, DIGITS, run, untimed
from torch.utils._pytree import tree_leaves

from utils.configs.checks import ConfigError

COMPILED = "trainer.compile=true"
ONLY_FEAT = "is_only_feat=true"
CASES = {
    "factorized": (BANANA, ["rate.kwargs.warmup_k_epoch=1"]),  # two graphs, and predictors
    "gaussian": (DIGITS, ["rate=MI_unitgaussian", "distortion=VAE", ONLY_FEAT]),
    "lossless": (BANANA, ["rate=lossless", ONLY_FEAT]),
    "hyperprior": (BANANA, ["rate=H_hyper", "distortion=BINCE", ONLY_FEAT]),
    "klt": (DIGITS, ["rate=H_factorized_klt", "finetune=freezer", ONLY_FEAT]),
}
SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in list(CASES)[3:]]


@pytest.mark.parametrize("case", [*list(CASES)[:3], *SLOW])
def test_a_compiled_run_continues_without_and_one_without_continues_compiled(
    tmp_path, monkeypatch, case
):
    """Compiled code draws different noise, so the steps are traced as one graph but not compiled.

    As with CUDA graphs, each step overwrites the outputs of the previous one.
    """
    compiler = torch.compile

    def trace(function, *, fullgraph, mode, dynamic):
        traced = compiler(function, backend="eager", fullgraph=fullgraph, dynamic=dynamic)
        outputs: list[torch.Tensor] = []

        def replay(*args, **options):
            for output in outputs:
                output.detach().fill_(torch.nan)
            results = traced(*args, **options)
            outputs[:] = [part for part in tree_leaves(results) if part is not None]
            return results

        return replay

    monkeypatch.setattr(torch, "compile", trace)

    def stop(module, batch):
        assert "training_losses" in vars(module)  # it is compiled
        raise KeyboardInterrupt

    base, settings = CASES[case]
    expected = untimed(run(tmp_path / "a", *settings, base=base))
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        in_training(patch, 1, stop)
        run(tmp_path / "b", *settings, COMPILED, base=base)
    resumed = untimed(run(tmp_path / "b", *settings, base=base))
    assert resumed == expected
    if ONLY_FEAT not in settings:  # a compiled predictor of the same run gives this too
        compiled = run(tmp_path / "b", *settings, COMPILED, "add_pred=compiled", base=base)
        assert untimed(compiled) == expected


def test_what_cannot_be_compiled_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler.*g\\+\\+"):
        run(tmp_path, COMPILED)
    assert not list(tmp_path.rglob("status.json"))


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["H_factorized", "H_hyper"])
def test_compiled_code_has_the_rate_of_an_uncompiled_run(tmp_path, rate):
    """They differ no more than runs with different seeds."""
    settings = [ONLY_FEAT, "trainer.max_epochs=4", f"rate={rate}"]
    rates = [
        run(tmp_path / f"{flag}", *settings, f"trainer.compile={flag}")["test/feat/rate"]
        for flag in ("true", "false")
    ]
    assert rates[0] == pytest.approx(rates[1], rel=0.05)
