#!/usr/bin/env bash
# CLIP: all of it.
experiment=clip_main
description="CLIP: data sets, bottleneck, linear classifiers and MLPs, with compression and without."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

# every step parses the same flags
for step in download_data clip_bottleneck_pretrain clip_bottleneck_linear_eval \
  clip_bottleneck_mlp_eval clip_raw_linear_eval clip_raw_mlp_eval; do
  "bin/clip/$step.sh" ${arguments[@]+"${arguments[@]}"} || status=$?
done
