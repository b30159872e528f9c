#!/usr/bin/env bash
# Create .venv if it does not exist, and install the dependencies in the versions that pass the tests.
#
# Usage: bin/setup.sh [--dev]
#   --dev       also install the tools for tests and linting
#   -h, --help  this help
# Environment: PYTHON names the interpreter to create .venv with. The default is the first usable
# one of python3.12, python3.11 (no compiler needed), python3.13, python3.14 (CompressAI is built with
# a C++ compiler), python3 and python; if there is none, uv downloads Python 3.12.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly OLDEST_MINOR=11
readonly NEWEST_MINOR=14
readonly NEWEST_WITH_WHEELS=12 # compressai has no wheels for later ones
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

# Prints "3.12", for example; includes the patch version only for 3.14.1.
version_of() { "$1" -c 'import sys
print("%d.%d" % sys.version_info[:2], end=".1\n" if sys.version_info[:3] == (3, 14, 1) else "\n")' 2>/dev/null; }
has_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

# Prints the problem with Python version $1; nothing if it is supported.
version_problem() {
    local major=${1%%.*} minor=${1#*.}
    if [ "$1" = 3.14.1 ]; then
        echo "torchvision does not support Python 3.14.1 (other releases of 3.14 are fine)"
    elif ((major < 3 || (major == 3 && minor < OLDEST_MINOR))); then
        echo "Python $1 is too old"
    elif ((major > 3 || minor > NEWEST_MINOR)); then
        echo "Python $1 is too new"
    fi
}

builds_compressai() { [ -n "$("$1" -c "import sys
if sys.version_info >= (3, $NEWEST_WITH_WHEELS + 1): print(1)")" ]; }

# Prints the Debian packages that interpreter $1, of version $2, needs to create and fill .venv.
missing_packages() {
    local missing=() compiler header
    has_venv "$1" || missing+=("python$2-venv")
    if builds_compressai "$1"; then
        compiler=${CXX:-$("$1" -c 'import sysconfig; print(sysconfig.get_config_var("CXX") or "c++")')}
        header=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
        command -v "${compiler%% *}" >/dev/null || missing+=(g++)
        [ -f "$header" ] || missing+=("python$2-dev")
    fi
    echo "${missing[*]-}"
}

# Sets `python` to $PYTHON, or else to the first usable interpreter on the path. If there is none,
# fails and sets `problems` (of each interpreter), `packages` (Debian packages that would solve them) and
# `venv_maker` (an interpreter of any version that can create virtual environments).
find_python() {
    local candidates=(python3.12 python3.11 python3.13 python3.14 python3 python)
    local candidate version problem missing
    problems="" packages="" venv_maker=""
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if ! command -v "$candidate" >/dev/null; then
            problem=${PYTHON:+"$candidate does not exist"}
        elif ! version=$(version_of "$candidate"); then
            problem="$candidate does not run"
        else
            if [ -z "$venv_maker" ] && has_venv "$candidate"; then venv_maker=$candidate; fi
            problem=$(version_problem "$version")
            if [ -z "$problem" ]; then
                missing=$(missing_packages "$candidate" "$version")
                if [ -z "$missing" ]; then
                    python=$candidate
                    return
                fi
                packages=${packages:-$missing} # of the first interpreter only
                problem="Python $version needs ${missing// /, }"
            fi
        fi
        # python3 is usually one of the interpreters above
        if [ -n "$problem" ] && [[ $problems != *"$problem"* ]]; then
            problems="${problems:+$problems; }$problem"
        fi
    done
    problems=${problems:-no Python on the path}
    return 1
}

# Creates .venv with a Python 3.12 that uv downloads, which needs no compiler. If uv is not on the path,
# it is installed temporarily from the package index. On failure, adds the reason to `problems`.
create_venv_with_uv() {
    local uv=uv scratch
    scratch=$(mktemp -d)
    # shellcheck disable=SC2064 # expand now, not when the trap runs
    trap "rm -rf '$scratch'" EXIT
    if ! command -v uv >/dev/null; then
        uv=$scratch/bin/uv
        if [ -z "$venv_maker" ]; then return 1; fi
        if ! { "$venv_maker" -m venv "$scratch" &&
            "$scratch/bin/python" -m pip install uv; } >"$scratch/log" 2>&1; then
            problems="$problems; uv could not be installed"
            return 1
        fi
    fi
    say "$problems: downloading Python 3.$NEWEST_WITH_WHEELS with uv"
    rm -rf "$VENV"
    if ! { UV_PYTHON_PREFERENCE=only-managed "$uv" venv --no-project \
        --python "3.$NEWEST_WITH_WHEELS" "$VENV" &&
        "$VENV_PYTHON" -m ensurepip; } >"$scratch/log" 2>&1; then
        problems="$problems; uv could not download Python 3.$NEWEST_WITH_WHEELS"
        problems="$problems ($(tail -n 1 "$scratch/log" | sed 's/^ *\(cause: \)*//'))"
        return 1
    fi
}

free_gb() { df -Pk "$1" | awk 'NR == 2 {printf "%d", $4 / 1048576}'; }

check_disk_space() {
    local needed_gb=2 available_gb
    if [ "$(uname -s)" = Linux ]; then needed_gb=8; fi # on Linux, torch includes CUDA
    available_gb=$(free_gb .)
    if ((available_gb < needed_gb)); then
        die "not enough disk space in $PWD: $available_gb GB free, $needed_gb GB needed"
    fi
}

create_venv() {
    local python problems packages venv_maker install_python
    check_disk_space
    if find_python; then
        say "creating $VENV with $python (Python $(version_of "$python"))"
        "$python" -m venv --clear "$VENV" || die "$python -m venv failed (see above)"
    elif [ -n "${PYTHON:-}" ] || ! create_venv_with_uv; then
        install_python="install Python 3.$NEWEST_WITH_WHEELS, which needs no compiler"
        if [ -n "$packages" ]; then
            die "$problems. Run 'sudo apt install $packages' (Debian, Ubuntu), or $install_python"
        fi
        die "$problems; 3.$OLDEST_MINOR to 3.$NEWEST_MINOR are supported." \
            "Please $install_python, or specify an interpreter: make setup PYTHON=/path/to/python"
    fi
}

# Ensures a working .venv: creates it, keeps it, or recreates it after an interrupted attempt.
prepare_venv() {
    local version problem
    if ! version=$(version_of "$VENV_PYTHON"); then
        create_venv
        return
    fi
    problem=$(version_problem "$version")
    if [ -n "$problem" ]; then
        die "$VENV: $problem. Remove it (rm -rf $VENV) and run this again"
    elif [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$version" ]; then
        die "$VENV has Python $version, not the version of PYTHON=$PYTHON." \
            "Remove it (rm -rf $VENV) and run this again"
    elif ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
        say "$VENV has no pip: recreating it"
        create_venv
    else
        say "using $VENV (Python $version)"
    fi
}

# After pip fails: prints the relevant lines and a one-line remedy.
explain_failure() {
    local temp=${TMPDIR:-/tmp}
    local network='NewConnection|NameResolution|ConnectTimeout|ReadTimeout|ProxyError|SSLError'
    if grep -q 'No space left on device' "$LOG"; then
        die "the disk is full: $(free_gb .) GB free in $PWD, $(free_gb "$temp") GB in $temp" \
            "(TMPDIR sets the folder for temporary files). Free some space and run this again"
    elif grep -E "$network" "$LOG" | tail -n 1 >&2; then
        die "the package index cannot be reached: check the network or proxy and run this again"
    fi
    grep -E '(ERROR|error):' "$LOG" | tail -n 5 >&2 || true
    if grep -q 'Failed building wheel for compressai' "$LOG"; then
        die "CompressAI could not be compiled (see $LOG); Python 3.$NEWEST_WITH_WHEELS needs no" \
            "compiler: rm -rf $VENV && make setup PYTHON=/path/to/python3.$NEWEST_WITH_WHEELS"
    fi
    die "pip failed: see above; $LOG has the full output"
}

# Shows the slow steps in pip's output.
show_progress() {
    local line download='Downloading ([A-Za-z0-9_.]+).* \(([0-9]{3,})[0-9.]* MB\)'
    while IFS= read -r line; do
        if [[ $line =~ $download ]]; then
            say "  downloading ${BASH_REMATCH[1]} (${BASH_REMATCH[2]} MB)"
        elif [[ $line == "Installing collected packages"*,* ]]; then
            say "  unpacking"
        fi
    done
}

pip_install() {
    PIP_USER=0 "$VENV_PYTHON" -m pip install --no-input --disable-pip-version-check "$@" 2>&1 |
        tee -a "$LOG" | show_progress || explain_failure
}

install() {
    local requirements=$1
    rm -f "$LOG" "$STAMP" "$DEV_STAMP" # no stamp while the installation is unfinished
    if builds_compressai "$VENV_PYTHON"; then
        "$VENV_PYTHON" -m pip show compressai >/dev/null 2>&1 ||
            say "building CompressAI, which has no wheel for this Python (a minute)"
        # without dependencies: it requires numpy 1, which has no wheel either, but also works with numpy 2
        pip_install --no-deps compressai -c requirements/constraints.txt
    fi
    say "installing $requirements (6 GB on Linux, 5 to 15 minutes the first time; log: $LOG)"
    pip_install -r "$requirements" -c requirements/constraints.txt
    # makes `import lossyless` and `lossyless-hub` work from any folder
    pip_install --quiet --no-deps --no-build-isolation --editable .
    "$VENV_PYTHON" -W ignore -c 'import torch, torchvision, compressai, constriction, clip' ||
        die "the packages cannot be imported (see above): remove $VENV and run this again"
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
        *) die "unknown option '$1': the only option is --dev" ;;
    esac
    prepare_venv
    install "$requirements"
    touch "${stamps[@]}"
    say "done in $(((SECONDS + 59) / 60)) min: $VENV is ready"
}

main "$@"
