#!/usr/bin/env bash
# CLIP: MLPs on compressed data sets. Settings: conf/experiment/clip_bottleneck_mlp_eval.yaml
experiment=clip_bottleneck_mlp_eval
description="CLIP: compresses data sets with the bottleneck (trained first if necessary), then searches over MLPs for each."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

# shellcheck source=bin/clip/data_sets.sh
source bin/clip/data_sets.sh
launch_for_each_data_set data_pred
aggregate $experiment
