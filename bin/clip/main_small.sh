#!/usr/bin/env bash
# CLIP: the data sets, the bottleneck, linear classifiers.
experiment=clip_main_small
description="CLIP: downloads the data sets, trains the bottleneck, then linear classifiers on compressed data sets."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

# every step parses the same flags
for step in download_data clip_bottleneck_pretrain clip_bottleneck_linear_eval; do
  "bin/clip/$step.sh" ${arguments[@]+"${arguments[@]}"} || status=$?
done
