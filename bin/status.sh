#!/usr/bin/env bash
# How an experiment stands: how many of its jobs are done, running, failed, ..., and why.

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bin/settings.sh
source bin/settings.sh

usage() {
  cat <<END
usage: $0 EXPERIMENT [-m MODE] [-a "KEY=VALUE ..."]... [-h]

How the jobs of an experiment stand: queued, running, done, failed, interrupted or lost; since when,
how far, and with what error; how to continue and how to cancel them.

  EXPERIMENT  a file in conf/experiment/, or with the prefix of its mode, as in results/exp_EXPERIMENT
  -m MODE     the mode that it was started with
  -a "K=V .." settings that it was started with, such as paths.results=...; may be given several times
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

python=.venv/bin/python
[ -x "$python" ] || python=python
exec "$python" -m utils.status "experiment=$experiment" "mode=$mode" ${overrides[@]+"${overrides[@]}"}
