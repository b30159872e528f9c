"""Runs on disk: identity, folders, status files, checkpoints; and signals from schedulers."""
