# shellcheck shell=bash
# The data sets of the searches with CLIP, one study for each: those of conf/aggregate.yaml, and
# ImageNet. Sourced once flags are parsed.
# shellcheck disable=SC2034 # used by those who source it
read -r -a data_sets < <(
  sed -n '/^summarize_clip:/,/^$/s/^  data: \[\(.*\)\].*/\1/p' conf/aggregate.yaml | tr -d ,
)
data_sets+=(imagenet)
# shellcheck disable=SC2154 # of the flags
[ "$mode" != quick ] || data_sets=(digits)
