"""Runs on disk: identity, folders, status files, signals, checkpoints."""
