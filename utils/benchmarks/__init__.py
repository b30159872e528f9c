"""Benchmarks of speed and size against references in the same process: `bin/benchmark.sh`."""
