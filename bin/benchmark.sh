#!/usr/bin/env bash
# Speed of data, training and coding, and file sizes, against references measured in the same run.
# A few minutes on two CPU cores; exit status 1 if a goal is missed.
#
#   bin/benchmark.sh                  # all subjects, one table
#   bin/benchmark.sh --only coding    # one of: data augmentation training coding bits files hub
#   bin/benchmark.sh --quick          # fewer repetitions
#   bin/benchmark.sh --only experiments               # hours that each experiment takes at full size
#   bin/benchmark.sh --only experiments --match mnist # only names that contain this
#   bin/benchmark.sh --only gpu       # profile of training steps; a smoke test without a GPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=python
[ -x .venv/bin/python ] && python=.venv/bin/python
exec "$python" -m utils.benchmarks "$@"
