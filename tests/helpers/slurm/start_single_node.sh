#!/usr/bin/env bash
# Start a one-node Slurm on this machine (Debian 12, Ubuntu 24.04 or newer), as root, for tests of
# job submission. Needs neither systemd nor cgroups; installs missing packages with apt-get.
#
# Usage: tests/helpers/slurm/start_single_node.sh [-h]
#   -h, --help  this help
# Environment: SINGLE_NODE_CPUS, SINGLE_NODE_MEM_MB and SINGLE_NODE_GPUS set the resources that the
# node claims to have (default: the machine's), so that jobs for 8 CPUs and a GPU run on a laptop.
#
# Partitions: local (the default), debug (for short jobs), urgent (whose jobs preempt others).
# There is no accounting: squeue shows ended jobs for an hour. A second start with the same settings
# changes nothing. stop_single_node.sh stops the cluster. Its files are in /etc/slurm and in
# slurm-single below /run, /var/lib and /var/log.
set -euo pipefail
# shellcheck source=tests/helpers/slurm/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly PACKAGES=(munge slurmctld slurmd slurm-client)
readonly MUNGE_SOCKET=$RUN/munge/socket

main() {
    case "${1:-}" in
        "") ;;
        -h | --help) usage; exit ;;
        *) die "unexpected argument '$1' (-h for help)" ;;
    esac
    lock
    check_foreign_files
    install_packages
    read_machine
    make_folders
    write_slurm_conf | put slurm.conf
    # slurmd loads a cgroup plugin even if nothing uses it. The v1 plugin then does nothing, whereas
    # v2 needs systemd, and choosing between them automatically needs /sys/fs/cgroup.
    put cgroup.conf <<<"CgroupPlugin=cgroup/v1"
    write_gres_conf | put gres.conf
    start_munged
    start_slurmctld
    start_slurmd
    say "ready: $(sinfo -h -p local -o 'node %N %T, %c CPUs, %m MB, generic resources %G')"
}

# --- packages and machine

# Fail before anything is installed if /etc/slurm belongs to another Slurm.
check_foreign_files() {
    local name
    for name in "${CONFIG_FILES[@]}"; do
        [ ! -e "$ETC/$name" ] || is_ours "$ETC/$name" ||
            die "$ETC/$name belongs to another Slurm. Nothing was changed; move it away to continue"
    done
}

install_packages() {
    local package missing=()
    for package in "${PACKAGES[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) == ii* ]] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "needs apt-get to install: ${missing[*]}"
    say "installing ${missing[*]}"
    mkdir -p "$LOG"
    {
        apt-get update || true # a package source that we do not need may be broken
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            -o DPkg::Lock::Timeout=120 "${missing[@]}"
    } </dev/null &>"$LOG/apt.log" ||
        die "apt-get cannot install ${missing[*]}: $(tail -n 3 "$LOG/apt.log"). Log: $LOG/apt.log"
}

# Sets the variables that describe the machine in the configuration.
read_machine() {
    host=$(uname -n)
    # Slurm can listen on the loopback interface alone if the host name resolves to 127.0.0.1 (but not
    # to Debian's 127.0.1.1). Otherwise, it listens everywhere, and munge's key keeps strangers out.
    listen=""
    [[ $(getent ahostsv4 "$host") != 127.0.0.1\ * ]] ||
        listen="CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"
    host=${host%%.*}
    cpus=${SINGLE_NODE_CPUS:-$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)} # nproc heeds them
    mem_mb=${SINGLE_NODE_MEM_MB:-$(awk '/^MemTotal/ {print int($2 / 1024 * 0.95)}' /proc/meminfo)}
    local devices=(/dev/nvidia[0-9]*)
    [ -e "${devices[0]}" ] || devices=()
    gpus=${SINGLE_NODE_GPUS:-${#devices[@]}}
    check_number SINGLE_NODE_CPUS "$cpus" 1
    check_number SINGLE_NODE_MEM_MB "$mem_mb" 1
    check_number SINGLE_NODE_GPUS "$gpus" 0
}

check_number() { # NAME VALUE SMALLEST
    [[ $2 =~ ^[0-9]+$ && $2 -ge $3 ]] || die "$1 must be a whole number of at least $3, not '$2'"
}

make_folders() {
    install -d "$ETC" "$LOG" "$LIB/slurmd"
    install -d -o munge -g munge "$RUN/munge"
    install -d -o munge -g munge -m 0700 "$LIB/munge"
    install -d -o slurm -g slurm -m 0700 "$RUN/slurm"
    install -d -o slurm -g slurm "$LIB/slurmctld"
}

# --- configuration

# Write stdin to a file in /etc/slurm: put NAME
put() {
    local file=$ETC/$1 text
    text=$(echo "$MARK, which overwrites it." && cat)
    [ "$text" != "$(cat "$file" 2>/dev/null)" ] || return 0
    if is_running slurmctld || is_running slurmd; then
        die "the cluster has other settings ($file differs): stop it with stop_single_node.sh"
    fi
    install -m 0644 /dev/stdin "$file" <<<"$text"
}

write_slurm_conf() {
    local gres="" gres_types=""
    if ((gpus > 0)); then gres="Gres=gpu:$gpus" gres_types="GresTypes=gpu"; fi
    cat <<CONF
ClusterName=single
SlurmctldHost=$host(127.0.0.1)
$listen
SlurmUser=slurm
# A separate socket leaves the system's munged alone. A requeued job waits for cred_expire seconds
# (Slurm's default: 120).
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET,cred_expire=10
StateSaveLocation=$LIB/slurmctld
SlurmdSpoolDir=$LIB/slurmd
SlurmctldPidFile=$RUN/slurm/slurmctld.pid
SlurmdPidFile=$RUN/slurm/slurmd.pid
SlurmdLogFile=$LOG/slurmd.log

# Seconds for which squeue shows how a job ended (Slurm's default: 300).
MinJobAge=3600

# Without cgroups: a job's processes are found through their parents, and memory is polled.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
JobAcctGatherParams=OverMemoryKill

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
# Jobs that can never run are rejected at once instead of pending forever.
EnforcePartLimits=ALL
# Seconds between SIGTERM and SIGKILL (Slurm's default: 30), and until a silent node is down (300).
KillWait=10
SlurmdTimeout=30
# A failed node returns to service, and its jobs are requeued.
ReturnToService=2
JobRequeue=1

# A preempted job gets the signal it asked for; GraceTime seconds later, it is killed and requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

# Trust these numbers even if the machine has less. A job that requests no memory gets the share of
# its CPUs instead of all memory.
SlurmdParameters=config_overrides
$gres_types
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$mem_mb $gres State=UNKNOWN
PartitionName=DEFAULT Nodes=$host State=UP MaxTime=INFINITE DefMemPerCPU=$((mem_mb / cpus)) PriorityTier=1 GraceTime=30
PartitionName=local Default=YES
PartitionName=debug MaxTime=4:00:00
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
CONF
}

# Jobs get CUDA_VISIBLE_DEVICES only if each GPU has a device file; without one, any file will do.
write_gres_conf() {
    local i device
    for ((i = 0; i < gpus; i++)); do
        device=/dev/nvidia$i
        if [ ! -e "$device" ]; then
            device=$RUN/gpu$i
            ln -sfn /dev/null "$device"
        fi
        echo "NodeName=$host Name=gpu File=$device"
    done
}

# --- daemons

# Start a daemon in the foreground, detached, and record its pid: start_daemon USER NAME ARGUMENT...
start_daemon() {
    local user=$1 name=$2
    shift 2
    ! is_running "$name" || return 0
    # The environment is empty, because jobs could inherit it.
    (
        cd /
        exec setsid env -i PATH="$PATH" LC_ALL=C \
            setpriv --reuid="$user" --regid="$user" --init-groups "$name" "$@"
    ) </dev/null &>"$LOG/$name.out" {lock_fd}>&- &
    echo $! >"$RUN/$name.pid"
    until_true 5 is_running "$name" || fail "$name"
    say "$name is running (pid $(pid_of "$name"))"
}

# Wait until a check of a daemon succeeds, or the daemon is gone: wait_for SECONDS NAME COMMAND...
wait_for() {
    local seconds=$1 name=$2
    shift 2
    until_true "$seconds" succeeds_or_gone "$name" "$@" || fail "$name"
    is_running "$name" || fail "$name"
}

succeeds_or_gone() { # NAME COMMAND...
    local name=$1
    shift
    ! is_running "$name" || "$@"
}

fail() { # NAME
    tail -n 5 "$LOG/$1.out" >&2
    if grep -qi 'getaddrinfo() failed' "$LOG/$1.out"; then
        echo "Slurm needs an address other than 127.0.0.1, e.g.: ip addr add 192.0.2.1/32 dev lo" >&2
    fi
    die "$1 is not working; the end of $LOG/$1.out is shown above"
}

start_munged() {
    local key=$LIB/munge/key
    [ -s "$key" ] ||
        head -c 128 /dev/urandom | install -o munge -g munge -m 0400 /dev/stdin "$key"
    start_daemon munge munged --foreground --socket="$MUNGE_SOCKET" --key-file="$key" \
        --seed-file="$LIB/munge/seed" --pid-file="$RUN/munge/pid"
    wait_for 10 munged munge --socket="$MUNGE_SOCKET" --no-input
}

start_slurmctld() {
    start_daemon slurm slurmctld -D
    wait_for 30 slurmctld is_controller_up
}

is_controller_up() { scontrol ping | grep -q 'is UP'; }

start_slurmd() {
    start_daemon root slurmd -D
    # A node that the last run left drained or down does not recover by itself.
    case $(sinfo -hN -o %T) in
        drain* | down*) scontrol update "nodename=$host" state=resume || true ;; # it may be up again
    esac
    wait_for 60 slurmd is_node_up
}

is_node_up() { sinfo -hN -p local -o %T | grep -qxE 'idle|mixed|allocated'; }

main "$@"
