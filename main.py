"""Fit a compressor, really compress data with it, learn a task from what was decoded.

python main.py experiment=banana_viz_VIC            # an experiment of conf/experiment/
python main.py data@data_feat=digits rate=H_hyper   # or a combination of one's own
python main.py --help                               # the main settings, all options
"""

from omegaconf import DictConfig

from utils.cluster import sweep


def main(cfg: DictConfig) -> object:
    """One job: three stages, each of them skipped if its results are on disk.

    Returns the metric(s) `cfg.monitor_return`, for hyper-parameter searches.
    """
    # torch takes seconds to import; errors in configs should not
    from utils.training import distributed, jobs, stages

    with jobs.prepared(cfg) as cfg, distributed.joined(cfg):
        metrics = stages.featurizer(cfg)
        if not cfg.is_only_feat:
            metrics |= stages.communicate(cfg)
            metrics |= stages.predict(cfg)
        return jobs.finished(cfg, metrics)


if __name__ == "__main__":
    sweep.run(main)
