#!/usr/bin/env bash
# CLIP: the data sets, the bottleneck, linear classifiers.
experiment=clip_main_small
description="CLIP: downloads the data sets, trains the bottleneck, then linear classifiers on compressed data sets."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

run_scripts bin/clip/download_data.sh bin/clip/clip_bottleneck_pretrain.sh \
  bin/clip/clip_bottleneck_linear_eval.sh
