# shellcheck shell=bash
# Parses the flags of the experiment scripts and defines `launch`, `aggregate` and `run_scripts`.
# A script sets `experiment` (and optionally `description`), sources this file, and calls these functions.
#
# With -s, the script starts itself again in the background, as a driver with --wait, and returns once
# the jobs are queued. The driver waits for the jobs, then creates tables and figures.

set -euo pipefail
script=$(realpath "$0") # before changing directory
printf -v me %q "$0"    # for commands that the user can paste
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bin/settings.sh
source bin/settings.sh

usage() {
  cat <<END
usage: $0 [-m MODE] [-s SLURM] [-t MINUTES] [-a "KEY=VALUE ..."]... [--wait] [-c JOB_ID] [-v PREFIX] [-h]

${description:-Runs the experiment $experiment.}

  -m MODE     a file in conf/mode/, e.g. quick (minutes on a CPU), dev, debug
  -s NAME     a file in conf/slurm/: submit to that cluster instead of running here; tables and
              figures are created in the background when all jobs have ended
  -t MINUTES  time limit of each job on a cluster
  -a "K=V .." any settings of main.py; can be repeated; values may contain spaces
  --wait      with -s: return only when all jobs have ended, with the highest of their exit statuses
  -c JOB_ID   continue the sweep with this id (printed when it started; a folder in outputs/), or the
              sweep of the Slurm job with this id: finished runs are reused, others run again
  -v PREFIX   only recreate tables and figures, for the runs in mode PREFIX ("": full-size runs)
  -h          this help
END
}

fail() {
  echo "$0: $1" >&2
  exit 2
}

# Options of conf/GROUP, for error messages.
options_of() {
  find "conf/$1" -maxdepth 1 -name '*.yaml' -exec basename {} .yaml \; | sort | tr '\n' ' '
}

check_option() { # GROUP NAME FLAG
  [ -f "conf/$1/$2.yaml" ] || fail "$3 $2: there is no conf/$1/$2.yaml; choose from: $(options_of "$1")"
}

# Finds the sweep with this id, or the latest one with this Slurm job id (such as 87 or 87_3).
find_sweep() {
  local id=$1 files
  if [[ $id =~ ^[0-9]+(_[0-9]+)?$ ]]; then
    files=$(grep -lEs "\"scheduler_job\": \"$id(_[0-9]+)?\"" outputs/*/*/*/job.json || true)
    id=$(cut -d/ -f2 <<<"$files" | sort | tail -n 1)
  fi
  [ -n "$id" ] && [ -f "outputs/$id/arguments" ] || return 1
  echo "$id"
}

parse_flags() {
  arguments=("$@")
  mode=none mode_flag=-m slurm=none continues="" is_plot_only=false is_waiting=false
  overrides=()
  drawn=() settings="" # overrides that also affect tables: as words, and as flags to print
  local flag more setting OPTIND=1
  local has_time_limit=false
  while getopts ":m:s:t:a:c:v:h-:" flag; do
    [[ $flag != [mstc] ]] || [ -n "$OPTARG" ] || fail "-$flag needs a value, found nothing"
    case $flag in
      m) mode=$OPTARG ;;
      s) slurm=$OPTARG ;;
      t) [[ $OPTARG =~ ^[0-9]+$ ]] || fail "-t takes a number of minutes, not '$OPTARG'"
         overrides+=("timeout_min=$OPTARG") has_time_limit=true ;;
      a) mapfile -t more < <(split_settings "$OPTARG"); overrides+=("${more[@]}")
         for setting in "${more[@]}"; do
           [[ $setting =~ ^\+*slurm\. ]] || { drawn+=("$setting"); settings+=" -a ${setting@Q}"; }
         done ;;
      c) continues=$OPTARG ;;
      v) is_plot_only=true; mode_flag=-v; mode=${OPTARG%_} ;;
      h) usage; exit 0 ;;
      -) [ "$OPTARG" = wait ] || fail "unknown option --$OPTARG (-h for help)"
         is_waiting=true ;;
      :) fail "-$OPTARG needs a value (-h for help)" ;;
      *) fail "unknown option -$OPTARG (-h for help)" ;;
    esac
  done
  shift $((OPTIND - 1))
  [ $# -eq 0 ] || fail "unexpected argument '$1' (-h for help)"
  mode=${mode:-none}
  if $has_time_limit && [ "$slurm" = none ]; then
    echo "$0: -t has no effect without -s: jobs on this machine have no time limit" >&2
  fi
}

parse_flags "$@"
if [ -n "$continues" ]; then
  was_waiting=$is_waiting n_words=2
  if $is_waiting; then n_words=3; fi
  [ $# -eq "$n_words" ] ||
    fail "-c ID reuses the flags of that sweep: pass no other flags except --wait, and put a space before ID"
  continued=$(find_sweep "$continues") || fail "-c $continues: there is no sweep with this id in outputs/"
  of=$(cat "outputs/$continued/script" 2>/dev/null || echo "$script")
  [ "$of" = "$script" ] || fail "-c $continues: this sweep belongs to another script: $(printf %q "$of") -c $continued"
  mapfile -d '' arguments <"outputs/$continued/arguments"
  parse_flags ${arguments[@]+"${arguments[@]}"}
  continues=$continued is_waiting=$was_waiting
  echo "Continuing $continued"
fi
check_option mode "$mode" "$mode_flag"
check_option slurm "$slurm" -s

find_python

# The script exits with the worst exit status of its parts; if one fails, the others still run.
status=0
keep_worst() { [ "$1" -le "$status" ] || status=$1; }
# A part without any finished job counts as failed.
NONE_DONE=3
keep_failure() { if [ "$1" -eq $NONE_DONE ]; then keep_worst 1; else keep_worst "$1"; fi; }
trap 'exit $status' EXIT
# Ctrl-C stops the script, not only its current job.
trap 'status=130; exit' INT TERM

# Id of the sweep, shared with the driver; `-c` uses it to find the arguments.
if [ -n "${LOSSYLESS_JOB_ID:-}" ]; then
  job_id=$LOSSYLESS_JOB_ID
  unset LOSSYLESS_JOB_ID # scripts called by this one have their own ids
elif ! $is_plot_only; then
  job_id=$(date +%Y-%m-%d_%H-%M-%S)_$$
  mkdir -p "outputs/$job_id"
  echo "$script" >"outputs/$job_id/script"
  : >"outputs/$job_id/arguments"
  [ ${#arguments[@]} -eq 0 ] || printf '%s\0' "${arguments[@]}" >"outputs/$job_id/arguments"
  [ -z "$continues" ] || echo "$continues" >"outputs/$job_id/continues"
fi

# Start the script again in the background; exit once its jobs are queued or, if the new process ends
# first, with its exit status.
detach() {
  local log=outputs/$job_id/log driver as_mode=""
  # in its own session, and not deaf to SIGINT, unlike other background processes of scripts
  LOSSYLESS_JOB_ID=$job_id "$python" -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.setsid()
os.execv(sys.argv[1], sys.argv[1:])' "$script" --wait ${arguments[@]+"${arguments[@]}"} \
    >"$log" 2>&1 </dev/null &
  driver=$!
  echo "Submitting $experiment to $slurm; log: $log"
  trap 'kill -- -$driver 2>/dev/null; status=130; exit' INT TERM
  until grep -qs '^Queued ' "$log"; do
    if ! kill -0 "$driver" 2>/dev/null; then
      wait "$driver" || status=$?
      cat "$log" >&$((status == 0 ? 1 : 2))
      exit
    fi
    sleep 0.2
  done
  [ "$mode" = none ] || as_mode=" -m $mode"
  grep '^Queued ' "$log"
  cat <<END
Job id $job_id. The jobs run in the background, followed by tables and figures:
  log           tail -f $log
  status        bin/status.sh $experiment$as_mode$settings
  figures now   $me -v "${mode#none}"$settings
  continue      $me -c $job_id
END
  exit
}

if [ "$slurm" != none ] && ! $is_waiting && ! $is_plot_only; then
  detach
fi

# Train: launch EXPERIMENT [KEY=VALUE ...]
is_any_done="" # whether a job of this call is done; empty without jobs
launch() {
  $is_plot_only && return
  local name=$1 code=0; shift
  echo "== $name, mode $mode, job id $job_id"
  "$python" main.py "experiment=$name" "mode=$mode" "slurm=$slurm" "job_id=$job_id" \
    "$@" ${overrides[@]+"${overrides[@]}"} || code=$?
  case $code in
    0 | 1) is_any_done=true ;;
    *) is_any_done=${is_any_done:-false} ;; # 3: no job is done; others: killed
  esac
  keep_failure $code
  [ $code -ne 2 ] || exit # invalid command line: nothing was run
}

# Tables and figures: aggregate EXPERIMENT [KEY=VALUE ...]
aggregate() {
  local name=$1; shift
  if [ "$is_any_done" = false ]; then
    echo "No job of this call finished, so there are no tables. For tables of earlier runs: $me -v \"${mode#none}\"$settings"
    keep_worst $NONE_DONE
    return
  fi
  "$python" aggregate.py "experiment=$name" "mode=$mode" \
    "$@" ${drawn[@]+"${drawn[@]}"} >&"${TABLES_TO:-1}" || keep_worst $?
}

# Run other scripts with the same flags: run_scripts PATH...
run_scripts() {
  local part
  for part in "$@"; do
    "$part" ${arguments[@]+"${arguments[@]}"} || keep_failure $?
  done
}
