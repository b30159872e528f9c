#!/usr/bin/env bash
# Compare the speed of data loading, training and coding, and file sizes, with references measured in the
# same run. Takes a few minutes on two CPU cores; the exit status is 1 if a goal is missed.
#
#   bin/benchmark.sh                  # all subjects, one table
#   bin/benchmark.sh --only coding    # one of: data augmentation training kernels coding bits files hub
#   bin/benchmark.sh --quick          # fewer repetitions
#   bin/benchmark.sh --only experiments               # estimated hours of each experiment at full size
#   bin/benchmark.sh --only experiments --match mnist # only names that contain "mnist"
#   bin/benchmark.sh --only gpu       # profile of training steps; a smoke test without a GPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=python
[ -x .venv/bin/python ] && python=.venv/bin/python
exec "$python" -m utils.benchmarks "$@"
