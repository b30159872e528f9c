#!/usr/bin/env bash
# Compare file sizes, and the speed of data loading, training, coding and start-up, with references measured
# in the same run. Takes under ten minutes on two CPU cores; the exit status is 1 if a goal is missed.
#
#   bin/benchmark.sh                  # writes results/benchmark/<subject>.csv and README.md
#   bin/benchmark.sh --only coding    # one subject, see --help
#   bin/benchmark.sh --quick          # a smoke test; writes to outputs/benchmark
#   bin/benchmark.sh --compare OLD    # also list rows that are slower than in OLD (exit status 1 if any)
#   bin/benchmark.sh --compare OLD NEW                # compare two CSVs or folders, without running anything
#   bin/benchmark.sh --only features  # feature compressors at equal accuracy: see results/fewer_bits
#   bin/benchmark.sh --only experiments               # estimated hours of each experiment at full size
#   bin/benchmark.sh --only experiments --match mnist # only names that contain "mnist"
#   bin/benchmark.sh --only gpu       # profile training steps; without a GPU, only a smoke test
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bin/settings.sh
source bin/settings.sh

find_python
exec "$python" -m utils.benchmarks "$@"
