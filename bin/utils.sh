# shellcheck shell=bash
# Parsed once by every experiment script: flags, then `launch` and `aggregate`.
# A script sets `experiment` (and may set `description`), sources this file, and calls them.

set -euo pipefail
script=$(realpath "$0") # before leaving the caller's folder
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
usage: $0 [-m MODE] [-s SLURM] [-t MINUTES] [-a "KEY=VALUE ..."]... [-c JOB_ID] [-v PREFIX] [-h]

${description:-Runs the experiment $experiment.}

  -m MODE     a file in conf/mode/, e.g. quick (minutes on a CPU), dev, debug
  -s NAME     a file in conf/slurm/: submit to that cluster instead of running here
  -t MINUTES  time limit of each job on a cluster
  -a "K=V .." any settings of main.py; may be given several times
  -c JOB_ID   continue the sweep with this id (the first line that it printed; a folder in outputs/):
              finished runs are reused, others run again
  -v PREFIX   only tables and figures, of the runs of mode PREFIX ("" for the full experiment)
  -h          this help
END
}

fail() {
  echo "$0: $1" >&2
  exit 2
}

# Options of conf/GROUP, for error messages.
options_of() {
  find "conf/$1" -name '*.yaml' -exec basename {} .yaml \; | sort | tr '\n' ' '
}

check_option() { # GROUP NAME FLAG
  [ -f "conf/$1/$2.yaml" ] || fail "$3 $2: there is no conf/$1/$2.yaml; there are: $(options_of "$1")"
}

mode=none slurm=none job_id="" is_plot_only=false
overrides=()
arguments=("$@")
while getopts ":m:s:t:a:c:v:h" flag; do
  case $flag in
    m) mode=$OPTARG ;;
    s) slurm=$OPTARG ;;
    t) [[ $OPTARG =~ ^[0-9]+$ ]] || fail "-t takes minutes, not '$OPTARG'"
       overrides+=("timeout_min=$OPTARG") ;;
    a) read -r -a more <<<"$OPTARG"; overrides+=("${more[@]}") ;;
    c) job_id=$OPTARG
       [ ${#arguments[@]} -eq 2 ] || fail "-c takes the flags of that sweep: give no others"
       [ -f "outputs/$job_id/arguments" ] || fail "-c $job_id: there is no sweep outputs/$job_id"
       echo "Goes on with $job_id"
       mapfile -d '' arguments <"outputs/$job_id/arguments"
       exec "$script" ${arguments[@]+"${arguments[@]}"} ;;
    v) is_plot_only=true; mode=${OPTARG%_} ;;
    h) usage; exit 0 ;;
    :) fail "-$OPTARG needs a value (-h for help)" ;;
    *) fail "unknown option -$OPTARG (-h for help)" ;;
  esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || fail "unexpected argument '$1' (-h for help)"
mode=${mode:-none}
check_option mode "$mode" -m
check_option slurm "$slurm" -s

# Everything below starts from the same id; `-c` finds the arguments again by it.
job_id=$(date +%Y-%m-%d_%H-%M-%S)_$$
if ! $is_plot_only; then
  mkdir -p "outputs/$job_id"
  : >"outputs/$job_id/arguments"
  [ ${#arguments[@]} -eq 0 ] || printf '%s\0' "${arguments[@]}" >"outputs/$job_id/arguments"
fi

python=.venv/bin/python
[ -x "$python" ] || python=python

# The worst exit status of all jobs is the status of the script: tables are drawn all the same.
status=0
trap 'exit $status' EXIT
# Ctrl-C stops the script, not only the job that is under way.
trap 'status=130; exit' INT TERM

# Train: launch EXPERIMENT [KEY=VALUE ...]
launch() {
  $is_plot_only && return
  local name=$1; shift
  echo "== $name, mode $mode, job id $job_id"
  "$python" main.py "experiment=$name" "mode=$mode" "slurm=$slurm" "job_id=$job_id" \
    "$@" ${overrides[@]+"${overrides[@]}"} || status=$?
  [ $status -ne 2 ] || exit 2 # nothing ran: the command line is wrong
}

# Tables and figures: aggregate EXPERIMENT [KEY=VALUE ...]
aggregate() {
  local name=$1; shift
  "$python" aggregate.py "experiment=$name" "mode=$mode" \
    "$@" ${overrides[@]+"${overrides[@]}"} || status=$?
}
