# shellcheck shell=bash
# How `-a` is read, for the scripts that take it.

# "A=1 B=a b" to the lines A=1 and B=a b: a setting begins where a word is KEY=.
split_settings() {
  sed -E 's/ +([+~]*[A-Za-z_][A-Za-z0-9_./@]*=|~[A-Za-z_])/\n\1/g' <<<"$1"
}
