#!/usr/bin/env bash
# Uploads the runs that W&B has logged offline and not yet uploaded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null # never prompt

usage() {
  cat <<END
usage: $0 [EXPERIMENT]

Uploads all runs that W&B logged offline in logs/, or only those of one experiment (whose name
includes the mode: quick_banana_viz_VIC). Runs that are already uploaded are skipped. A run that was
interrupted and resumed is uploaded as a single run. Requires WANDB_API_KEY, or \`wandb login\` beforehand.
END
}

fail() {
  echo "$0: $1" >&2
  exit "${2:-2}"
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  -*) fail "unknown option $1 (-h for help)" ;;
esac
[ $# -le 1 ] || fail "expected at most one experiment, found: $* (-h for help)"

shopt -s nullglob
folders=(logs/*/wandb)
if [ $# -eq 1 ] && [ ! -d "logs/$1/wandb" ]; then
  names=("${folders[@]#logs/}")
  fail "there are no W&B runs of '$1' in logs/; experiments with W&B runs: ${names[*]%/wandb}"
fi
[ $# -eq 0 ] || folders=("logs/$1/wandb")
[ ${#folders[@]} -gt 0 ] || { echo "No W&B runs in logs/"; exit 0; }

wandb=.venv/bin/wandb
[ -x "$wandb" ] || wandb=wandb
upload() {
  "$wandb" sync --yes --skip-online --skip-synced "$@" ||
    fail "upload failed, see above; if credentials are missing, set WANDB_API_KEY or run $wandb login" 1
}

# Lists the runs that are incomplete on the server; the client marks complete ones.
left() {
  local folder run
  for folder in "${folders[@]}"; do
    for run in "$folder"/offline-run-*; do
      compgen -G "$run/*.wandb.synced" >/dev/null || echo "$run"
    done
  done
}

upload "${folders[@]}"
# The truncated file of a killed process blocks later parts of its run, so upload the rest one by one.
while read -r run; do upload "$run"; done < <(left)
mapfile -t incomplete < <(left)
[ ${#incomplete[@]} -eq 0 ] ||
  fail "uploaded only in part (still being written, or cut short by a kill): ${incomplete[*]}" 1
