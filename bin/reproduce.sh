#!/usr/bin/env bash
# Run what this machine can run, and write results/reproduction.md: published numbers next to ours.
# A second call continues.
#
#   bin/reproduce.sh                # all quick modes, about 40 minutes on two cores
#   bin/reproduce.sh --budget 90    # at most 90 minutes; also full-size experiments that take less
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=python
[ -x .venv/bin/python ] && python=.venv/bin/python
"$python" -c 'import hydra' 2>/dev/null ||
  { echo "nothing is installed yet: run 'make setup' first, or activate your environment" >&2; exit 2; }
exec "$python" -m utils.reproduction "$@"
