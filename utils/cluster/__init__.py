"""Runs the jobs of a sweep, on Slurm or on this machine."""
