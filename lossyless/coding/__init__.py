"""Integers to bytes and back: CDF tables, ANS coder, byte layouts of payloads. NumPy only."""
