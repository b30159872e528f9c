#!/usr/bin/env bash
# CLIP: trains the bottleneck on COCO. Settings: conf/experiment/clip_bottleneck_pretrain.yaml
experiment=clip_bottleneck_pretrain
description="CLIP: trains an entropy bottleneck on COCO features; the other scripts evaluate it."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
