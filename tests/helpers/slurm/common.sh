# shellcheck shell=bash disable=SC2034
# Shared by the start and stop scripts of the one-node Slurm: its files and daemons.

set -euo pipefail
umask 022
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset SLURM_CONF # it may name another cluster's configuration

program=$(basename "$0" .sh)
# Slurm's commands read /etc/slurm; all other files are in folders of our own.
readonly ETC=/etc/slurm RUN=/run/slurm-single LIB=/var/lib/slurm-single LOG=/var/log/slurm-single
readonly CONFIG_FILES=(slurm.conf cgroup.conf gres.conf)
readonly DAEMONS=(munged slurmctld slurmd) # in the order in which they start
readonly MARK='# Written by tests/helpers/slurm/start_single_node.sh'

say() { printf '%s: %s\n' "$program" "$*"; }
die() {
    printf '%s: error: %s\n' "$program" "$*" >&2
    exit 1
}

usage() { sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//p;}' "$0"; }

# One start or stop at a time; daemons must not inherit the lock (see start_daemon).
lock() {
    [ "$(id -u)" = 0 ] || die "must run as root (sudo $0)"
    mkdir -p "$RUN"
    exec {lock_fd}>"$RUN.lock"
    flock "$lock_fd"
}

pid_of() { cat "$RUN/$1.pid" 2>/dev/null; }

# Whether the daemon $1 that start_single_node.sh started is alive. A zombie has no /proc/PID/exe.
is_running() {
    local pid
    pid=$(pid_of "$1") && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] && [ -e "/proc/$pid/exe" ]
}

is_ours() { grep -qsF "slurm/start_single_node.sh" "$1"; }

# Poll until a command succeeds: until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}
