#!/usr/bin/env bash
# Create .venv if there is none and install the dependencies at the versions the tests pass with.
#
# Usage: bin/setup.sh [--dev]
#   --dev       also what the tests and the linters need
#   -h, --help  this help
# Environment: PYTHON names the interpreter to create .venv with (default: the first usable one of
# python3.12, python3.11, python3, python).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly OLDEST_MINOR=11
readonly NEWEST_MINOR=12 # compressai, numpy 1.26 and SQLAlchemy 1.4 have no wheels for Python 3.13
readonly VENV=.venv
readonly VENV_PYTHON=$VENV/bin/python
readonly STAMP=$VENV/.installed
readonly DEV_STAMP=$VENV/.installed-dev
readonly LOG=$VENV/setup.log

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

usage() { sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Why the version of the interpreter $1 cannot be used, in a few words; nothing when it can.
reason_against_version() {
    local version major minor
    if ! version=$(version_of "$1"); then
        echo "does not run"
        return
    fi
    major=${version%%.*} minor=${version#*.}
    if ((major < 3 || (major == 3 && minor < OLDEST_MINOR))); then
        echo "is Python $version, too old"
    elif ((major > 3 || minor > NEWEST_MINOR)); then
        echo "is Python $version, too new for the wheels of the dependencies"
    fi
}

# The same for an interpreter that is to make .venv.
reason_against() {
    local reason
    reason=$(reason_against_version "$1")
    if [ -z "$reason" ] && ! "$1" -c 'import venv, ensurepip' 2>/dev/null; then
        reason="lacks venv (Debian, Ubuntu: sudo apt install python$(version_of "$1")-venv)"
    fi
    echo "$reason"
}

# Sets `python` to $PYTHON, or else to the first interpreter on the path that can be used.
find_python() {
    local candidate reason rejected=""
    # shellcheck disable=SC2086 # the default is a list
    for candidate in ${PYTHON:-python3.12 python3.11 python3 python}; do
        if ! command -v "$candidate" >/dev/null; then
            if [ -n "${PYTHON:-}" ]; then rejected="; $candidate does not exist"; fi
            continue
        fi
        reason=$(reason_against "$candidate")
        if [ -z "$reason" ]; then
            python=$candidate
            return
        fi
        rejected="$rejected; $candidate $reason"
    done
    die "needs Python 3.$OLDEST_MINOR to 3.$NEWEST_MINOR${rejected:-; found none}." \
        "Install one, or name it: make demo PYTHON=/path/to/python3.$NEWEST_MINOR"
}

free_gb() { df -Pk "$1" | awk 'NR == 2 {printf "%d", $4 / 1048576}'; }

check_disk_space() {
    local needed_gb=2 available_gb
    if [ "$(uname -s)" = Linux ]; then needed_gb=8; fi # torch there brings CUDA
    available_gb=$(free_gb .)
    if ((available_gb < needed_gb)); then
        die "not enough disk space in $PWD: $available_gb GB free, $needed_gb GB needed"
    fi
}

create_venv() {
    check_disk_space
    find_python
    say "creating $VENV with $python (Python $(version_of "$python"))"
    "$python" -m venv --clear "$VENV" || die "$python -m venv failed (see above)"
}

# Leaves a .venv that works: made now, as it was, or made again if an attempt was cut short.
prepare_venv() {
    local version reason
    if ! version=$(version_of "$VENV_PYTHON"); then
        create_venv
        return
    fi
    reason=$(reason_against_version "$VENV_PYTHON")
    if [ -n "$reason" ]; then
        die "$VENV $reason: remove it (rm -rf $VENV) and run this again"
    elif ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
        say "$VENV has no pip: making it again"
        create_venv
    else
        say "using $VENV (Python $version)"
    fi
}

# pip has failed and said why at length; say in one line what can be done about it.
explain_failure() {
    local temp=${TMPDIR:-/tmp}
    local network='NewConnection|NameResolution|ConnectTimeout|ReadTimeout|ProxyError|SSLError'
    if grep -q 'No space left on device' "$LOG"; then
        die "the disk is full: $(free_gb .) GB free in $PWD, $(free_gb "$temp") GB in $temp" \
            "(TMPDIR names another place for temporary files). Make room and run this again"
    elif grep -qE "$network" "$LOG"; then
        die "the package index cannot be reached: check the network or proxy and run this again"
    fi
    die "pip failed: see above, or $LOG in full"
}

install() {
    local requirements=$1
    say "installing $requirements (about 5 GB on Linux; minutes the first time)"
    rm -f "$LOG" "$STAMP" "$DEV_STAMP" # no stamp while the installation is unfinished
    PIP_USER=0 "$VENV_PYTHON" -m pip install --no-input --disable-pip-version-check --log "$LOG" \
        -r "$requirements" -c requirements/constraints.txt || explain_failure
    # from any folder: `import lossyless`, `lossyless-hub`
    PIP_USER=0 "$VENV_PYTHON" -m pip install --no-input --disable-pip-version-check --log "$LOG" \
        --quiet --no-deps --no-build-isolation --editable . || explain_failure
    "$VENV_PYTHON" -W ignore -c 'import torch, torchvision, compressai, constriction, clip' ||
        die "the packages do not import (see above): remove $VENV and run this again"
}

main() {
    local requirements=requirements/requirements.txt stamps=("$STAMP")
    case "${1:-}" in
        "") ;;
        --dev) requirements=requirements/dev.txt stamps=("$STAMP" "$DEV_STAMP") ;;
        -h | --help)
            usage
            exit
            ;;
        *) die "unknown option '$1': the only one is --dev" ;;
    esac
    prepare_venv
    install "$requirements"
    touch "${stamps[@]}"
    say "done: $VENV is ready"
}

main "$@"
