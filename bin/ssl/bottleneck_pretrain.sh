#!/usr/bin/env bash
# ResNet50 of CLIP: trains bottlenecks on its features of COCO. Settings: conf/experiment/ssl_bottleneck_pretrain.yaml
experiment=ssl_bottleneck_pretrain
description="ResNet50 of CLIP: trains bottlenecks on its features of COCO."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
