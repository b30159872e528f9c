"""Speed and size against references that run in the same process: `bin/benchmark.sh`."""
