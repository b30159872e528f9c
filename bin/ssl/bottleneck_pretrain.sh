#!/usr/bin/env bash
# CLIP's ResNet50: trains bottlenecks on its COCO features. Settings: conf/experiment/ssl_bottleneck_pretrain.yaml
experiment=ssl_bottleneck_pretrain
description="CLIP's ResNet50: trains bottlenecks on its COCO features."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
