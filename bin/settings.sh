# shellcheck shell=bash
# Shared by all scripts that call Python.

# Splits "A=1 B=a b" into the lines "A=1" and "B=a b": each word KEY=... or ~KEY starts a new setting.
split_settings() {
  sed -E 's/ +([+~]*[A-Za-z_][A-Za-z0-9_./@]*=|~[A-Za-z_])/\n\1/g' <<<"$1"
}

# Sets `python` to the interpreter of .venv or, without one, that of the active environment.
find_python() {
  python=.venv/bin/python
  [ -x "$python" ] && return
  python=python
  "$python" -c 'import hydra' 2>/dev/null && return
  echo "$0: nothing is installed yet: run 'make setup' first, or activate your environment" >&2
  exit 2
}
