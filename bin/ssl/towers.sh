#!/usr/bin/env bash
# Four towers on all data sets (not in the paper's scripts). Settings: conf/experiment/ssl_towers_*.yaml
experiment=ssl_towers
description="ResNet50s trained with CLIP, SimCLR, SwAV and ImageNet labels: bottlenecks, followed by linear classifiers and MLPs."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

for part in linear_eval mlp_eval; do
  launch ${experiment}_$part
  aggregate ${experiment}_$part
done
