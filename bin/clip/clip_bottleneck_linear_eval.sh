#!/usr/bin/env bash
# CLIP: linear classifiers on compressed data sets. Settings: conf/experiment/clip_bottleneck_linear_eval.yaml
experiment=clip_bottleneck_linear_eval
description="CLIP: compresses data sets with the bottleneck (trained first if necessary), then fits linear classifiers."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
