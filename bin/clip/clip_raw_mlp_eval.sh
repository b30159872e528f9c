#!/usr/bin/env bash
# CLIP: MLPs on raw features. Settings: conf/experiment/clip_raw_mlp_eval.yaml
experiment=clip_raw_mlp_eval
description="CLIP: a search over MLPs for each data set, on uncompressed features."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

# shellcheck source=bin/clip/data_sets.sh
source bin/clip/data_sets.sh
launch_for_each_data_set data_feat data_pred
aggregate $experiment
