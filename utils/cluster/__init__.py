"""Jobs of a sweep: on Slurm or on this machine."""
