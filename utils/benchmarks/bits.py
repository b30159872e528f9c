"""Bits of a file, with all overhead, against the entropy that the model promises.

Of the difference, header, index and chunks of the file are about 0.02 bits per point.
"""

import tempfile
from pathlib import Path

import torch

from utils.benchmarks.comparison import Comparison, Goal
from utils.benchmarks.setups import SMALL, banana_config, short_trainer
from utils.evaluation import communication
from utils.training import building, fitting


def compare(is_quick: bool) -> list[Comparison]:
    """Bits per point of the Banana's test set after a brief training."""
    fitting.quiet()
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        cfg = banana_config(Path(folder), *SMALL, "optimizer_feat.kwargs.lr=3e-3")
        compressor = building.build_compressor(cfg)
        data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
        short_trainer(cfg, 50 if is_quick else 300).fit(compressor, datamodule=data)
        compressor.eval()
        compressor.rate.update()
        path = Path(folder, "test.lossyless")
        sent, _ = communication.send(
            compressor, [data.loader("test")], path, cfg.communication.chunk_size
        )
        metrics = communication.measure(
            compressor, data, "test", sent=sent, path=path, device=device, n_single=1
        )
    n_bits, rate = metrics["test/comm/n_bits"], metrics["test/comm/rate"]
    slack = 0.01 + 0.01 / rate  # 1 % and 0.01 bit
    return [
        Comparison(
            f"file of {sent.n_examples:,} Banana points",
            "theoretical rate",
            "bit",
            [n_bits],
            [rate],
            Goal(1 - slack, 1 + slack),
        )
    ]
