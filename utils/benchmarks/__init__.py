"""Benchmarks of speed, size and memory against references: `bin/benchmark.sh`."""
