#!/usr/bin/env bash
# CLIP: bottlenecks for torch.hub. Settings: conf/experiment/clip_hub.yaml
experiment=clip_hub
description="CLIP: trains factorized bottlenecks for torch.hub and saves them in the format of the released weights."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
settings=("experiment=$experiment" "mode=$mode" ${drawn[@]+"${drawn[@]}"})
$is_plot_only || "$python" -m utils.save_hub "${settings[@]}" || keep_worst $?
aggregate $experiment
