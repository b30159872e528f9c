"""Encoders that one experiment exports and another imports, as files under `paths.pretrained`.

A file contains the weights of `p_ZlX.mapper` and the config of `p_ZlX`. On import, the
config must match. In settings, file names are relative to `paths.pretrained`, which is not part of
a run's identity. `{seed}` in a name is replaced with the seed, so that runs that differ only in
their seed have the same settings.
"""

import io
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from lossyless.distributions import CondDist
from lossyless.weights import WeightsError, read_checkpoint, sha256_of
from utils.runs.files import write_bytes
from utils.runs.identity import canonical
from utils.training import building

EXPORT, INIT = "export.encoder", "finetune.init"


def encoder_path(cfg: DictConfig, setting: str) -> Path | None:
    """Path of the file that `EXPORT` or `INIT` names; None if that setting is null.

    Raises `ValueError` if the name is absolute.
    """
    name = OmegaConf.select(cfg, setting)
    if name is None:
        return None
    if name.startswith(("/", "~")):
        raise ValueError(f"{setting}={name} must be relative to paths.pretrained, not absolute")
    return Path(cfg.paths.pretrained) / name.replace("{seed}", str(cfg.seed))


def export_encoder(cfg: DictConfig, path: Path) -> None:
    """Write the encoder of a finished featurizer to a file.

    An existing file is replaced unless its content is identical.
    """
    encoder = building.load_compressor(cfg).p_ZlX
    weights = {name: value.cpu() for name, value in encoder.mapper.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"state_dict": weights, "encoder": _config(cfg)}, buffer)
    content = buffer.getvalue()
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    print(f"[featurizer] encoder exported: {path}")


def import_encoder(encoder: CondDist, cfg: DictConfig) -> None:
    """If `finetune.init` names a file, load the weights in that file into an encoder.

    Raises FileNotFoundError if the file does not exist, and ValueError if it does not contain an
    encoder or if the encoder has a different config.
    """
    path = _existing(cfg)
    if path is None:
        return
    try:
        content = read_checkpoint(path)
        weights, found = content["state_dict"], _canonical(content["encoder"])
    except (WeightsError, KeyError) as error:
        if isinstance(error.__cause__, OSError):  # an I/O error, not a corrupt file
            raise
        raise ValueError(
            f"{INIT}: {path} is damaged or not an exported encoder ({error}): delete it and "
            f"export the encoder again by setting `{EXPORT}` in the experiment that trains it"
        ) from error
    expected = _config(cfg)
    if different := [key for key in {**expected, **found} if expected.get(key) != found.get(key)]:
        lines = [
            f"{key}: {found.get(key)} in the file, {expected.get(key)} in the config"
            for key in different
        ]
        raise ValueError(
            f"{INIT}: the encoder in {path} does not match the config. {'; '.join(lines)}. Use "
            "the encoder and data settings of the experiment that trained it"
        )
    encoder.mapper.load_state_dict(weights)


def imported_digest(cfg: DictConfig) -> str | None:
    """SHA-256 digest of the file that `finetune.init` names; None if that setting is null."""
    path = _existing(cfg)
    return None if path is None else sha256_of(path)


def _config(cfg: DictConfig) -> dict:
    """The canonical config of the encoder."""
    return _canonical(OmegaConf.to_container(cfg.featurizer.kwargs.p_ZlX, resolve=True))


def _canonical(encoder: dict) -> dict:
    return canonical(encoder, ("featurizer", "kwargs", "p_ZlX"))


def _existing(cfg: DictConfig) -> Path | None:
    """Path of the file that `finetune.init` names; None if that setting is null.

    Raises FileNotFoundError if the file does not exist.
    """
    path = encoder_path(cfg, INIT)
    if path is not None and not path.is_file():
        raise FileNotFoundError(
            f"{INIT}: there is no file {path}. First run the experiment that trains this encoder, "
            f"with `{EXPORT}={OmegaConf.select(cfg, INIT)}`"
        )
    return path
