# shellcheck shell=bash
# Parses the flag -a of scripts.

# Splits "A=1 B=a b" into the lines "A=1" and "B=a b": a setting begins at each word KEY=.
split_settings() {
  sed -E 's/ +([+~]*[A-Za-z_][A-Za-z0-9_./@]*=|~[A-Za-z_])/\n\1/g' <<<"$1"
}
