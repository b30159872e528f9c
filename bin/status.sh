#!/usr/bin/env bash
# Print an experiment's status: jobs by state, unfinished jobs and their errors, next commands.

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bin/settings.sh
source bin/settings.sh

usage() {
  cat <<END
usage: $0 EXPERIMENT [-m MODE] [-a "KEY=VALUE ..."]... [-h]

Prints the jobs of an experiment by state (queued, running, done, failed, interrupted, lost), their
progress and errors, and the commands to continue and cancel them.

  EXPERIMENT  a file in conf/experiment/; may be prefixed with a mode, as in results/exp_EXPERIMENT
  -m MODE     mode in which the jobs run
  -a "K=V .." settings of the jobs, such as paths.results=...; can be repeated
  -h          this help
END
}

fail() {
  echo "$0: $1 (-h for help)" >&2
  exit 2
}

experiment="" mode=none
overrides=()
while [ $# -gt 0 ]; do
  case $1 in
    -h) usage; exit 0 ;;
    -m | -a)
      [ $# -ge 2 ] || fail "$1 needs a value"
      if [ "$1" = -m ]; then mode=${2:-none}; else
        mapfile -t more < <(split_settings "$2")
        overrides+=("${more[@]}")
      fi
      shift 2 ;;
    -*) fail "unknown option $1" ;;
    *)
      [ -z "$experiment" ] || fail "unexpected argument '$1'"
      experiment=$1
      shift ;;
  esac
done
[ -n "$experiment" ] || fail "which experiment?"

find_python
exec "$python" -m utils.status "experiment=$experiment" "mode=$mode" ${overrides[@]+"${overrides[@]}"}
