"""Checks of settings: kinds of values, numbers of epochs, files of weights."""

import re
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf
from omegaconf.nodes import Node

from utils.configs.resolvers import weights_id

CLASS = "_target_"  # Hydra's key for a class
# Settings whose value is the name of published weights or the path of a file.
WEIGHT_SETTINGS = (
    "tower.kwargs.weights",
    "data_feat.kwargs.clip_weights",
    "data_pred.kwargs.clip_weights",
)

# Settings whose files may have a whole number where a fraction is as good.
NUMBERS = {
    "limit_test_batches",  # a number of batches, or a share of them; so are the next ones
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    "mem_gb",
    "p_norm",
    "total_factor",
}


class ConfigError(ValueError):
    """The command line or a config file has an invalid setting."""


def expected_kind(name: str, stated: Node, value: object) -> str | None:
    """In words, what was expected in place of a value of another kind; None if it may stand there.

    Null, interpolations and whatever takes their place are taken as they are. So is text where
    there are lists of texts, and the reverse: one name, or several.

    Parameters
    ----------
    name : the last part of the setting's key.
    stated : what the config says before the value replaces it.
    """
    is_open = stated._is_none() or stated._is_missing() or stated._is_interpolation()
    if is_open or value is None or (isinstance(value, str) and "${" in value):
        return None
    words, kinds = _kinds(name, stated._value())
    is_right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    return None if is_right else words


def _kinds(name: str, stated: object) -> tuple[str, tuple[type, ...]]:
    """What a setting holds, in words and as types that its values may have."""
    if isinstance(stated, Mapping):
        return "a group of settings", (Mapping,)
    if isinstance(stated, Sequence) and not isinstance(stated, str):
        is_of_text = len(stated) > 0 and isinstance(stated[0]._value(), str)
        return "a list", (list, str) if is_of_text else (list,)
    if isinstance(stated, bool):
        return "true or false", (bool,)
    if isinstance(stated, float) or (isinstance(stated, int) and name in NUMBERS):
        return "a number", (float, int)
    if isinstance(stated, int):
        return "a whole number", (int,)
    return "text", (str, int, float, list)


def check_epochs(cfg: DictConfig) -> None:
    """Raise ConfigError if a training would have no epoch, or would not evaluate any."""
    for part in ("trainer", "trainer_pred"):
        for name in ("max_epochs", "check_val_every_n_epoch"):
            value = cfg[part][name]
            if value is None or value < 1:
                raise ConfigError(f"{part}.{name} is {value}, expected at least 1")


def check_weights(cfg: DictConfig) -> None:
    """Raise ConfigError if a file of weights is missing, before any job starts."""
    for key in WEIGHT_SETTINGS:
        try:
            weights_id(OmegaConf.select(cfg, key))
        except FileNotFoundError as error:
            parent, _, name = key.rpartition(".")
            stated = str(OmegaConf.select(cfg, parent)._get_node(name)._value())
            variables = re.findall(r"oc\.env:(\w+)", stated)
            ways = [f"{key}=FILE", *(f"export {variable}=FILE" for variable in variables)]
            raise ConfigError(f"{key}: {error}: give {', or '.join(ways)}") from error
