#!/usr/bin/env bash
# Stop the Slurm that start_single_node.sh started: cancel its jobs, then stop its daemons (found by
# their pid files).
#
# Usage: tests/helpers/slurm/stop_single_node.sh [--purge]
#   --purge     also remove its configuration and logs; the packages stay installed
#   -h, --help  this help
set -euo pipefail
# shellcheck source=tests/helpers/slurm/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
    local is_purge=false i
    case "${1:-}" in
        "") ;;
        --purge) is_purge=true ;;
        -h | --help) usage; exit ;;
        *) die "unexpected argument '$1' (-h for help)" ;;
    esac
    lock
    # Jobs outlive slurmd, so they are cancelled first.
    if is_running slurmctld && is_running slurmd; then cancel_jobs; fi
    for ((i = ${#DAEMONS[@]} - 1; i >= 0; i--)); do stop_daemon "${DAEMONS[i]}"; done
    if $is_purge; then purge; fi
}

# Jobs that ignore SIGTERM are killed after KillWait seconds, so this can take as long.
cancel_jobs() {
    until_true 60 are_jobs_cancelled || die "jobs did not end: $(active_jobs | tr '\n' ' ')"
}

are_jobs_cancelled() {
    local jobs
    mapfile -t jobs < <(active_jobs)
    [ ${#jobs[@]} -gt 0 ] || return 0
    scancel "${jobs[@]}" || true # some may have just ended
    return 1
}

active_jobs() { squeue -ha -t pending,running,suspended,completing -o %A | sort -u; }

stop_daemon() { # NAME
    if is_running "$1"; then
        kill -TERM "$(pid_of "$1")"
        until_true 30 is_stopped "$1" || die "$1 (pid $(pid_of "$1")) did not end"
        say "$1 ended"
    fi
    rm -f "$RUN/$1.pid"
}

is_stopped() { ! is_running "$1"; }

purge() {
    local name
    for name in "${CONFIG_FILES[@]}"; do
        if is_ours "$ETC/$name"; then rm "$ETC/$name"; fi
    done
    rm -rf "$RUN" "$LIB" "$LOG"
    say "removed its files; the packages stay installed"
}

main "$@"
