#!/usr/bin/env bash
# Other towers than CLIP. Settings: conf/experiment/ssl_bottleneck_pretrain.yaml
experiment=ssl_bottleneck_pretrain
description="ResNet50s of CLIP, SimCLR, SwAV and ImageNet: trains bottlenecks for their features of COCO."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
