#!/usr/bin/env bash
# Supervised ResNet50: bottlenecks, followed by MLPs. Settings: conf/experiment/ssl_bottleneck_mlp_eval.yaml
experiment=ssl_bottleneck_mlp_eval
description="Supervised ResNet50: bottlenecks, followed by MLPs."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
