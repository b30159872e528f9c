"""From a command line to resolved configs: sweeps and modes of experiments, clear errors.

`run(main)` is what `main.py` calls. It reads the experiment's `sweep` and `modes`, adds them to
the command line where the user did not say otherwise, and hands over to Hydra, which composes the
config of each job and launches them.
"""

import difflib
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from utils.report import report, states
from utils.runs import experiment_folder, writable_dir

MAIN_PROCESS = "LOSSYLESS_MAIN_PROCESS"  # for workers to know whose they are
MAX_LISTED = 20  # names in an error that has a better hint
WEIGHT_SUFFIXES = (".pt", ".pth", ".npz", ".torch", ".tar", ".ckpt", ".bin", ".safetensors")
# Settings that are the name of published weights, or the path of a file.
WEIGHT_SETTINGS = (
    "tower.kwargs.weights",
    "data_feat.kwargs.clip_weights",
    "data_pred.kwargs.clip_weights",
)
CONF_DIR = Path(__file__).resolve().parent.parent / "conf"


class ConfigError(ValueError):
    """The command line or a config file asks for something that does not exist."""


def n_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_per_job(n_jobs: int) -> int:
    """Processors for each of several jobs that share this machine, at least one."""
    return max(1, n_cpus() // n_jobs)


def balle_latent_side(image_shape: Sequence[int]) -> int:
    """Side of the latent image that the encoder `balle` makes of images [C, side, side]."""
    from lossyless.architectures import balle

    return balle.latent_side(image_shape)


def weights_id(weights: str | None) -> str | None:
    """What stands for weights in the identity of a run, wherever they lie.

    The SHA-256 of a file; the name itself of weights that somebody publishes; None for None.
    Raises FileNotFoundError for what looks like a file and is none.
    """
    if weights is None:
        return None
    path = Path(weights)
    if path.is_file():
        stat = path.stat()
        return _sha256(path, stat.st_mtime_ns, stat.st_size)
    if path.is_absolute() or path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"there is no file {weights} with weights")
    return weights


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, *state: int) -> str:
    """Digest of a file; `state` tells its versions apart."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def register_resolvers() -> None:
    """Make `${n_cpus:}`, `${cpus_per_job:N}`, ... available in configs."""
    for resolver in (n_cpus, cpus_per_job, balle_latent_side, weights_id):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


register_resolvers()


def compose_config(overrides: Sequence[str] = (), config_name: str = "main") -> DictConfig:
    """The config of one job, as `python main.py *overrides` would give it.

    Raises `ConfigError` naming the alternatives if an override is misspelt.
    """
    parsed = _parse(overrides)
    if GlobalHydra.instance().is_initialized():
        raise RuntimeError("compose_config cannot be called inside a Hydra job: use its config")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        groups = [override for override in parsed if _is_group(override)]
        cfg = _compose(config_name, groups)
        for override in parsed:
            if override not in groups:
                _check_key(cfg, override)
        return cfg if len(groups) == len(parsed) else _compose(config_name, parsed)


def expand(overrides: Sequence[str]) -> list[str]:
    """Overrides with what the experiment's sweep and the chosen mode add to them.

    Whatever the user set wins: a key that is in `overrides` is left out of the expansion.
    """
    parsed = _parse(overrides)
    chosen = {override.get_key_element().lstrip("+~") for override in parsed}
    cfg = compose_config(overrides)
    in_mode = cfg.modes.get(cfg.mode_name, {})
    swept = dict(cfg.sweep) | dict(in_mode.get("sweep", {}))
    fixed = {k: v for k, v in in_mode.get("overrides", {}).items() if k not in swept}
    # an option that was chosen is taken as it is in its file, whatever the mode makes of others
    for override in filter(_is_group, parsed):
        stated, node = _stated_in(override), f"{_package(override)}."
        fixed = {
            key: value
            for key, value in fixed.items()
            if key not in stated and (_has(cfg, key) or not key.startswith(node))
        }
    added = [f"{key}={_value(value)}" for key, value in fixed.items() if key not in chosen]
    added += [f"{key}={_values(values)}" for key, values in swept.items() if key not in chosen]
    compose_config([*added, *overrides])  # a misspelt key in an experiment's file is an error too
    return [*added, *overrides]


def run(main: Callable[[DictConfig], object], config_name: str = "main") -> None:
    """Run `main` on every config that `sys.argv` and the experiment ask for; then report.

    Exits with status 1 if a job failed, naming it, after all others have finished; with 2 if the
    command line is wrong; with 130 after Ctrl-C, 143 after SIGTERM.
    """
    hydra_main = hydra.main(config_path=str(CONF_DIR), config_name=config_name, version_base="1.3")
    flags = [arg for arg in sys.argv[1:] if arg.startswith("-")]
    if any(flag not in ("-m", "--multirun") for flag in flags):
        hydra_main(main)()  # --help, --cfg and the like are Hydra's own
        return
    try:
        overrides = expand([arg for arg in sys.argv[1:] if arg not in flags])
        cfg = compose_config(overrides)
        _check_weights(cfg)
        for name in ("results", "pretrained", "outputs"):  # data may lie where nobody can write
            writable_dir(cfg.paths[name], f"paths.{name}")
        # also of the storage of a search
        results = writable_dir(Path(cfg.paths.results) / experiment_folder(cfg), "paths.results")
        _check_search(cfg, overrides)
    except (ConfigError, HydraException, OSError) as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    sweep_dir = Path(cfg.paths.outputs) / (cfg.job_id or f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    sweep_dir /= f"{cfg.experiment}_{os.getpid()}"
    os.environ[MAIN_PROCESS] = str(os.getpid())
    # Always a multirun: one job or many, they leave the same traces.
    sys.argv[1:] = ["--multirun", *overrides, f"hydra.sweep.dir={sweep_dir}"]
    try:
        hydra_main(main)()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as error:
        sys.exit(error.code or 143)  # Lightning ends jobs that get SIGTERM without a status
    finally:
        print(report(sweep_dir, results))
    is_search = cfg.hypopt.name != "none"
    if is_search and any(job["state"] != "done" for job in states(sweep_dir)):
        sys.exit(1)  # a search goes on without a trial that failed


def _check_weights(cfg: DictConfig) -> None:
    """Raise if a file of weights is not there, which every job would find out by itself."""
    for key in WEIGHT_SETTINGS:
        try:
            weights_id(OmegaConf.select(cfg, key))
        except FileNotFoundError as error:
            parent, _, name = key.rpartition(".")
            stated = str(OmegaConf.select(cfg, parent)._get_node(name)._value())
            variables = re.findall(r"oc\.env:(\w+)", stated)
            ways = [f"{key}=FILE", *(f"export {variable}=FILE" for variable in variables)]
            raise ConfigError(f"{key}: {error}: give {', or '.join(ways)}") from error


def _check_search(cfg: DictConfig, overrides: list[str]) -> None:
    """Raise if a search has nothing to search, or no direction for each of its objectives."""
    if cfg.hypopt.name == "none":
        return
    if not any(override.is_sweep_override() for override in _parse(overrides)):
        raise ConfigError(
            "hypopt: there is nothing to search: give ranges, such as "
            "'encoder.z_dim=choice(16, 32)' or 'featurizer.loss.beta=tag(log, interval(1e-3, 1))'"
        )
    objectives = OmegaConf.to_container(OmegaConf.create({"all": cfg.monitor_return}))["all"]
    n_objectives = len(objectives) if isinstance(objectives, list) else 1
    n_directions = len(cfg.hypopt.direction)
    if n_objectives != n_directions:
        raise ConfigError(
            f"hypopt.direction has {n_directions} entries for {n_objectives} objectives "
            f"(monitor_return={objectives}): give one, minimize or maximize, for each"
        )


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"settings are KEY=VALUE, without spaces: {error}") from error


def _compose(config_name: str, overrides: list[Override]) -> DictConfig:
    try:
        return compose(config_name, _strings(_first_values(overrides)))
    except (HydraException, ValueError) as error:
        # Hydra goes on with where it looked, which concerns only those who write plugins
        raise ConfigError(str(error).partition("Config search path")[0].strip()) from error


def _first_values(overrides: list[Override]) -> list[Override]:
    """One job of a sweep: the first value of each swept key."""
    for override in overrides:
        if override.is_sweep_override() and not override.is_choice_sweep():
            continue  # intervals and ranges of a search: any value composes
        if override.is_sweep_override():
            first = next(iter(override.sweep_iterator()))
            override.input_line = f"{override.get_key_element()}={first}"
    return [o for o in overrides if not o.is_sweep_override() or o.is_choice_sweep()]


def _strings(overrides: list[Override]) -> list[str]:
    return [override.input_line for override in overrides]


def _is_group(override: Override) -> bool:
    return (CONF_DIR / override.key_or_group.split("@")[0]).is_dir() or "@" in (
        override.get_key_element()
    )


def _package(override: Override) -> str:
    """The key at which the choice of a group stands."""
    return override.package or override.key_or_group


def _stated_in(override: Override) -> set[str]:
    """The keys of the config that the file of a chosen option states."""
    group = override.key_or_group.split("@")[0]
    (choice,) = _first_values([override])
    option = choice.input_line.split("=", 1)[1]
    file = CONF_DIR / group / f"{option}.yaml"
    if not file.is_file() or file.read_text().startswith("# @package _global_"):
        return set()  # no choice for one place of the config
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        stated = OmegaConf.select(_compose(f"{group}/{option}", []), group.replace("/", "."))
    return {f"{_package(override)}.{key}" for key in _keys(OmegaConf.to_container(stated))}


def _keys(node: dict) -> list[str]:
    """The dotted keys of a nested dict."""
    keys = []
    for key, value in node.items():
        keys += (
            [key, *(f"{key}.{below}" for below in _keys(value))]
            if isinstance(value, dict)
            else [key]
        )
    return keys


def _has(cfg: DictConfig, key: str) -> bool:
    """Whether a config has a key, whatever its value."""
    node = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def _check_key(cfg: DictConfig, override: Override) -> None:
    """Raise if an override names a key that the config does not have."""
    key = override.key_or_group
    if key.startswith("hydra") or override.is_add() or override.is_delete():
        return
    node = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, DictConfig) or part not in node:
            where = ".".join(parts[:depth]) or "the config"
            names = [str(name) for name in node] if isinstance(node, DictConfig) else []
            close = difflib.get_close_matches(part, names, n=3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            if not close or len(names) <= MAX_LISTED:
                hint += f"It has: {', '.join(names) or 'no keys'}. "
            raise ConfigError(
                f"there is no '{key}': {where} has no '{part}'; {hint}(+{key}=... adds a new key.)"
            )
        node = OmegaConf.select(node, part)


def _values(values: object) -> str:
    """A list as a sweep over its values; text, such as `interval(0, 1)`, is one already."""
    return values if isinstance(values, str) else ",".join(map(_value, values))


def _value(value: object) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if OmegaConf.is_config(value):
        return json.dumps(OmegaConf.to_container(value)).replace('"', "")
    return str(value)
