#!/usr/bin/env bash
# CLIP: trains the bottleneck and evaluates it with linear classifiers.
experiment=clip_main_linear
description="CLIP: trains the bottleneck, then fits linear classifiers on compressed data sets."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

run_scripts bin/clip/clip_bottleneck_pretrain.sh bin/clip/clip_bottleneck_linear_eval.sh
