#!/usr/bin/env bash
# CLIP: downloads the data sets. Settings: conf/experiment/clip_download_data.yaml
experiment=clip_download_data
description="CLIP: downloads all data sets and lists those that you have to download by hand."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

settings=("experiment=$experiment" "mode=$mode" ${drawn[@]+"${drawn[@]}"})
$is_plot_only || "$python" -m utils.fetch_data "${settings[@]}" || keep_worst $?
