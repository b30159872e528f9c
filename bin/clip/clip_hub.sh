#!/usr/bin/env bash
# CLIP: the bottlenecks of torch.hub. Settings: conf/experiment/clip_hub.yaml
experiment=clip_hub
description="CLIP: trains the bottlenecks of torch.hub (factorized) and saves them in its format."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
settings=("experiment=$experiment" "mode=$mode" ${drawn[@]+"${drawn[@]}"})
$is_plot_only || "$python" -m utils.save_hub "${settings[@]}" || keep_worst $?
aggregate $experiment
