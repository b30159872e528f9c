# shellcheck shell=bash
# The data sets of the searches with CLIP, one study for each. Sourced once flags are parsed.
# shellcheck disable=SC2034 # used by those who source it
data_sets=(stl10 pcam cars196 cifar10 food101 pets37 caltech101 cifar100 imagenet)
# shellcheck disable=SC2154 # of the flags
[ "$mode" != quick ] || data_sets=(digits)
