"""Entropy coding of integers: CDF tables, ANS coder, byte layouts of payloads. NumPy only."""
