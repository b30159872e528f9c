#!/usr/bin/env bash
# Run everything that this machine can run, and write results/reproduction.md: published numbers next to
# ours. Running it again resumes where it stopped.
#
#   bin/reproduce.sh                # all quick modes, about 40 minutes on two cores
#   bin/reproduce.sh --budget 90    # at most 90 minutes; also runs full-size experiments that fit
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bin/settings.sh
source bin/settings.sh

find_python
exec "$python" -m utils.reproduction "$@"
