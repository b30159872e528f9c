"""From a command line to resolved configs: sweeps and modes of experiments, clear errors.

`run(main)` is what `main.py` calls. It reads the experiment's `sweep` and `modes`, adds them to
the command line where the user did not say otherwise, and hands over to Hydra, which composes the
config of each job and launches them.
"""

import difflib
import json
import os
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

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"
# One folder per call of main.py, named by its id: Hydra's output, and the state of each job.
OUTPUTS = Path("outputs")
SWEEP_FILE = "sweep.json"


class ConfigError(ValueError):
    """The command line or a config file asks for something that does not exist."""


def n_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def register_resolvers() -> None:
    """Make `${n_cpus:}` available in configs."""
    OmegaConf.register_new_resolver("n_cpus", n_cpus, replace=True)


register_resolvers()


def compose_config(overrides: Sequence[str] = (), config_name: str = "main") -> DictConfig:
    """The config of one job, as `python main.py *overrides` would give it.

    Raises `ConfigError` naming the alternatives if an override is misspelt.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    if GlobalHydra.instance().is_initialized():
        raise RuntimeError("compose_config cannot be called inside a Hydra job: use its config")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        _check_keys(config_name, parsed)
        try:
            return compose(config_name, _strings(_first_values(parsed)))
        except HydraException as error:
            raise ConfigError(str(error)) from error


def expand(overrides: Sequence[str]) -> list[str]:
    """Overrides with what the experiment's sweep and the chosen mode add to them.

    Whatever the user set wins: a key that is in `overrides` is left out of the expansion.
    """
    chosen = {o.key_or_group for o in _parse(overrides)}
    cfg = compose_config(overrides)
    in_mode = cfg.modes.get(cfg.mode_name, {})
    fixed = dict(in_mode.get("overrides", {}))
    swept = dict(cfg.sweep) | dict(in_mode.get("sweep", {}))
    added = [f"{key}={_value(value)}" for key, value in fixed.items() if key not in swept]
    added += [
        f"{key}={','.join(_value(value) for value in values)}" for key, values in swept.items()
    ]
    added = [override for override in added if override.split("=", 1)[0] not in chosen]
    compose_config([*added, *overrides])  # a misspelt key in an experiment's file is an error too
    return [*added, *overrides]


def run(main: Callable[[DictConfig], object], config_name: str = "main") -> None:
    """Run `main` on every config that `sys.argv` and the experiment ask for; then report.

    Exits with status 1 if a job failed, naming it, after all others have finished.
    """
    hydra_main = hydra.main(config_path=str(CONF_DIR), config_name=config_name, version_base="1.3")
    flags = [arg for arg in sys.argv[1:] if arg.startswith("-")]
    if any(flag not in ("-m", "--multirun") for flag in flags):
        hydra_main(main)()  # --help, --cfg and the like are Hydra's own
        return
    try:
        overrides = expand(_continued(sys.argv[1:]))
    except (ConfigError, HydraException) as error:
        sys.exit(f"Configuration error: {error}")
    # Always a multirun: one job or many, they leave the same traces.
    sweep_dir = OUTPUTS / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"
    sweep_dir.mkdir(parents=True)
    (sweep_dir / SWEEP_FILE).write_text(json.dumps(overrides, indent=2))
    sys.argv[1:] = ["--multirun", *overrides, f"hydra.sweep.dir={sweep_dir}"]
    try:
        hydra_main(main)()
    finally:
        print(report(sweep_dir))


def report(sweep_dir: Path) -> str:
    """How the jobs of a sweep ended: a line in all, and one for each that is not done."""
    jobs = [json.loads(file.read_text()) for file in sorted(sweep_dir.glob("*/job.json"))]
    n_done = sum(job["state"] == "done" for job in jobs)
    lines = [f"Sweep {sweep_dir.name}: {n_done} of {len(jobs)} jobs done."]
    for job in jobs:
        if job["state"] != "done":
            state = "lost" if job["state"] == "running" else job["state"]
            reason = str(job.get("error", "its process disappeared")).splitlines()[0]
            lines.append(f"  {state}: job {job['num']} {' '.join(job['overrides'])}: {reason}")
    if len(lines) > 1:
        lines.append(
            f"Finished work is kept. Run the same command again, or continue_job={sweep_dir.name}."
        )
    return "\n".join(lines)


def _continued(overrides: list[str]) -> list[str]:
    """With `continue_job=ID`, the overrides of that sweep, then those given now."""
    ids = [o.split("=", 1)[1] for o in overrides if o.startswith("continue_job=")]
    if not ids or ids[-1] in ("null", ""):
        return overrides
    file = OUTPUTS / ids[-1] / SWEEP_FILE
    if not file.is_file():
        known = sorted(path.parent.name for path in OUTPUTS.glob(f"*/{SWEEP_FILE}"))
        raise ConfigError(
            f"continue_job={ids[-1]}: there is no {file}. Known sweeps: {', '.join(known) or 'none'}"
        )
    now = {o.split("=", 1)[0] for o in overrides}
    before = [o for o in json.loads(file.read_text()) if o.split("=", 1)[0] not in now]
    return [*before, *overrides]


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


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


def _check_keys(config_name: str, overrides: list[Override]) -> None:
    """Raise if an override names a key that the config does not have."""
    groups = [o for o in overrides if _is_group(o)]
    try:
        cfg = compose(config_name, _strings(_first_values(groups)))
    except HydraException as error:
        raise ConfigError(str(error)) from error
    for override in overrides:
        key = override.key_or_group
        is_hydra = key.startswith("hydra")
        if override in groups or is_hydra or override.is_add() or override.is_delete():
            continue
        _check_key(cfg, key)


def _is_group(override: Override) -> bool:
    return (CONF_DIR / override.key_or_group.split("@")[0]).is_dir() or "@" in (
        override.get_key_element()
    )


def _check_key(cfg: DictConfig, key: str) -> None:
    node = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, DictConfig) or part not in node:
            where = ".".join(parts[:depth]) or "the config"
            names = [str(name) for name in node] if isinstance(node, DictConfig) else []
            close = difflib.get_close_matches(part, names, n=3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ConfigError(
                f"there is no '{key}': {where} has no '{part}'; {hint}"
                f"It has: {', '.join(names) or 'no keys'}. (+{key}=... adds a new key.)"
            )
        node = OmegaConf.select(node, part)


def _value(value: object) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if OmegaConf.is_config(value):
        return json.dumps(OmegaConf.to_container(value)).replace('"', "")
    return str(value)
