"""Figures of compressors, and the common style of all figures."""
