#!/usr/bin/env bash
# CLIP: data sets, bottleneck and linear classifiers.
experiment=clip_main_small
description="CLIP: downloads the data sets, trains the bottleneck, then fits linear classifiers on compressed data sets."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

# excludes ImageNet, which has to be downloaded by hand and is not evaluated here
# shellcheck source=bin/clip/data_sets.sh
source bin/clip/data_sets.sh
downloads=()
[ "$mode" = quick ] || downloads=(-a "data@data_feat=$(IFS=,; echo "coco,${data_sets[*]}")")
bin/clip/download_data.sh ${arguments[@]+"${arguments[@]}"} ${downloads[@]+"${downloads[@]}"} ||
  keep_failure $?
run_scripts bin/clip/clip_bottleneck_pretrain.sh bin/clip/clip_bottleneck_linear_eval.sh
