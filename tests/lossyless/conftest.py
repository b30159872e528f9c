"""Weights of a tiny CLIP and of a bottleneck for it."""

from pathlib import Path

import pytest
from helpers.tiny_clip import save_bottleneck, save_clip


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "clip_path": save_clip(folder / "clip.pt"),
        "pretrained_path": save_bottleneck(folder / "bottleneck.pt"),
    }
