"""results/reproduction.md: published numbers next to ours, and what was not reproduced."""

import contextlib
import io
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from utils.aggregation import aggregate
from utils.aggregation.experiment import MISSING, number, to_markdown
from utils.aggregation.paper_comparison import (
    NOT_RUN,
    SETTINGS,
    TABLE,
    published_experiments,
    published_numbers,
)
from utils.aggregation.tables import NoRunsError
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config
from utils.reproduction import differences
from utils.runs.files import write_text
from utils.runs.saved_runs import read_records

RESULTS = Path("results")
FIGURES = ("figures/quantization*.png", "figures/rec_imgs_*.png", "invariance_RD_curve.png")
OFFICIAL = {
    "accuracy": "z_hat as rounded in evaluation; here: as decoded from the files",
    "hyperprior": "takes means from the predicted scales; here: from the predicted means",
    "InfoNCE": "adds the log-weight of negatives before dividing by the temperature; here: after",
    "streams": "one stream per example; here: many examples share one",
}
INTRODUCTION = """# Reproduction

Written by `bin/reproduce.sh` from runs on one machine. VAE is the paper's VC. Quick modes train
smaller networks than the paper's, and for less time, so they cannot pass or fail: their verdicts
only say whether our number is within the tolerance. The second table compares VC with VIC.
"""
NOTEBOOK = """
`minimal_code` is a notebook. Our version, `notebooks/minimal_code.ipynb`, needs STL10 and CLIP's
weights.
"""


def write(entries: list[dict]) -> None:
    """Write the report on the experiments that `__main__.plan` returned."""
    tried = [entry for entry in entries if entry["seconds"]]
    done = [entry for entry in tried if entry["state"] == "done"]
    compared = {entry["command"]: _compare(entry) for entry in done}  # writes the tables
    numbers = _numbers(done)
    effects = []
    for entry in tried:
        with contextlib.suppress(NoRunsError):  # no compressor is trained yet
            effects += differences.measured(folder(entry))
    sections = {
        "Published numbers": _table(_shown(numbers)),
        "VC against VIC: ratios": _table(_ratios(numbers)),
        "Commands": _table(map(_command, tried)),
        "Settings that differ": "".join(
            f"`{command}`:\n\n```\n{text}```\n\n" for command, text in compared.items() if text
        ),
        "Figures": "".join(map(_figures, done)),
        "Not reproduced": _table(map(_missing, (e for e in entries if e["state"] != "done")))
        + NOTEBOOK,
        "Deliberate differences and their effect": _table(
            {"part": part, "official code": OFFICIAL[part], "run": run, "measured": effect}
            for part, run, effect in sorted(effects)
        ),
    }
    text = "".join(f"\n## {title}\n\n{body}" for title, body in sections.items())
    write_text(RESULTS / "reproduction.md", INTRODUCTION + text)
    print(f"Report: {RESULTS / 'reproduction.md'}")


def folder(entry: dict) -> Path:
    """Results folder of an experiment."""
    return RESULTS / f"exp_{entry['key']}"


def _table(rows: DataFrame | Iterable[dict]) -> str:
    frame = rows if isinstance(rows, DataFrame) else DataFrame(list(rows))
    return "None.\n" if frame.empty else to_markdown(frame)


def _compare(entry: dict) -> str:
    """Compare an experiment to the paper; return the settings that differ, with reasons."""
    overrides = [f"experiment={entry['experiment']}", f"mode={entry['mode']}"]
    cfg = compose_config([*overrides, "aggregate.modes=[compare_to_paper]"]).aggregate
    with contextlib.redirect_stdout(io.StringIO()) as output:
        if published_experiments().intersection(cfg.compare_to_paper.experiments):
            aggregate(cfg, folder(entry))
    settings = re.search(r"^\w+ at full size: .*", output.getvalue(), re.M | re.DOTALL)
    return settings[0] if settings else ""


def _numbers(done: list[dict]) -> DataFrame:
    """Published numbers and, where available, ours and the command; prefers full-size runs."""
    found = []
    for entry in sorted(done, key=lambda entry: entry["mode"] == "quick"):
        if (file := folder(entry) / f"{TABLE}.csv").exists():
            frame = pd.read_csv(file, dtype=dict.fromkeys(SETTINGS, str))
            found.append(frame.assign(command=entry["command"]))
    keys = ["experiment", *SETTINGS, "metric"]
    columns = [*keys, "ours", "sem", "verdict", "command"]
    ours = pd.concat([DataFrame(columns=columns), *found])[columns]
    ours = ours[ours["verdict"] != NOT_RUN].drop_duplicates(keys)
    return published_numbers().merge(ours, on=keys, how="left")


def _shown(numbers: DataFrame) -> DataFrame:
    shown = numbers[["experiment", *SETTINGS, "metric"]].fillna(MISSING)
    shown["published"] = numbers["value"].map("{:.4g}".format)
    shown["tolerance"] = numbers["tolerance"].map("±{:.3g}".format)
    shown["ours"] = [number(*pair) for pair in zip(numbers["ours"], numbers["sem"], strict=True)]
    command, verdict = numbers["command"].fillna(""), numbers["verdict"].fillna(NOT_RUN)
    in_quick = "not comparable (quick mode): " + verdict + " tolerance"
    shown["verdict"] = verdict.mask(command.str.endswith("-m quick"), in_quick)
    shown["command"] = command.map(lambda text: f"`{text}`" if text else MISSING)
    return shown


def _ratios(numbers: DataFrame) -> DataFrame:
    """Ratios of VC's numbers to VIC's."""
    keys = ["experiment", "data", "beta", "metric"]
    pairs = numbers.pivot(index=keys, columns="method", values=["value", "ours"])
    ratios = pairs.xs("VAE", axis=1, level=1) / pairs.xs("VIC", axis=1, level=1)
    ratios = ratios.rename(columns={"value": "published"}).astype(float).dropna()
    return ratios.map("{:.3g}".format).reset_index()


def _command(entry: dict) -> dict:
    records, _ = read_records(folder(entry))
    seeds = sorted({str(record.config.value("seed")) for record in records})
    return {
        "command": f"`{entry['command']}`",
        "state": entry["state"],
        "seeds": ", ".join(seeds),
        **{name: entry[name] for name in ("device", "commit")},
        "wall time of all calls (min)": f"{entry['seconds'] / 60:.1f}",
        "ended (UTC)": entry["finished"][:16],
    }


def _missing(entry: dict) -> dict:
    """Why an experiment was not finished, and which data and backbones it needs."""
    needs = []
    with contextlib.suppress(ConfigError):  # a script may run experiments with other names
        cfg = compose_config([f"experiment={entry['experiment']}", f"mode={entry['mode']}"])
        swept = [cfg.sweep.get(f"data@{place}", []) for place in ("data_feat", "data_pred")]
        needs = [cfg.data_feat.name, *swept[0], *swept[1], cfg.tower.name]
    return {
        "command": f"`{entry['command']}`",
        "needs": ", ".join(dict.fromkeys(name for name in needs if name != "none")),
        "why": f"{entry['state']}: {entry['error']}",
    }


def _figures(entry: dict) -> str:
    files = [file for name in FIGURES for file in sorted(folder(entry).glob(name))]
    links = "\n".join(f"![{file.stem}]({file.relative_to(RESULTS).as_posix()})" for file in files)
    return f"`{entry['command']}`:\n\n{links}\n\n"
