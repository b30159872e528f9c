"""Train a compressor, compress a data set with it, and train a predictor on the decoded data.

python main.py experiment=banana_viz_VIC            # an experiment from conf/experiment/
python main.py data@data_feat=digits rate=H_hyper   # or your own combination
python main.py --help                               # lists the main settings
"""

from omegaconf import DictConfig

from utils.cluster import sweep


def main(cfg: DictConfig) -> object:
    """Run the three stages of one job, skipping stages whose results are on disk.

    Returns the metric(s) that `cfg.monitor_return` names, for hyper-parameter searches.
    """
    # imported late: torch takes seconds to import, and config errors should be reported first
    from utils.training import distributed, jobs, stages

    with jobs.prepared(cfg) as cfg, distributed.joined(cfg):
        metrics = stages.featurizer(cfg)
        if not cfg.is_only_feat:
            metrics |= stages.communicate(cfg)
            metrics |= stages.predict(cfg)
        return jobs.finished(cfg, metrics)


if __name__ == "__main__":
    sweep.run(main)
