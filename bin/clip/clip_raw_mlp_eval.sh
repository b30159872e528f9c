#!/usr/bin/env bash
# CLIP: MLPs on raw features. Settings: conf/experiment/clip_raw_mlp_eval.yaml
experiment=clip_raw_mlp_eval
description="CLIP: a search over MLPs for each data set, on features that are not compressed."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

# shellcheck source=bin/clip/data_sets.sh
source bin/clip/data_sets.sh
for data in "${data_sets[@]}"; do
  launch $experiment "data@data_feat=$data" "data@data_pred=$data"
done
aggregate $experiment
