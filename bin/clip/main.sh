#!/usr/bin/env bash
# CLIP: data sets, bottleneck, linear classifiers and MLPs.
experiment=clip_main
description="CLIP: data sets, bottleneck, linear classifiers and MLPs, with compression and without."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

run_scripts bin/clip/download_data.sh bin/clip/clip_bottleneck_pretrain.sh \
  bin/clip/clip_bottleneck_linear_eval.sh bin/clip/clip_bottleneck_mlp_eval.sh \
  bin/clip/clip_raw_linear_eval.sh bin/clip/clip_raw_mlp_eval.sh
