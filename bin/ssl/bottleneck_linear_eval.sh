#!/usr/bin/env bash
# Other towers than CLIP. Settings: conf/experiment/ssl_bottleneck_linear_eval.yaml
experiment=ssl_bottleneck_linear_eval
description="ResNet50s of CLIP, SimCLR, SwAV and ImageNet: bottlenecks, then linear classifiers."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
