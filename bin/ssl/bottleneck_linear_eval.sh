#!/usr/bin/env bash
# Supervised ResNet50: a bottleneck, followed by linear classifiers. Settings: conf/experiment/ssl_bottleneck_linear_eval.yaml
experiment=ssl_bottleneck_linear_eval
description="Supervised ResNet50: a bottleneck, followed by linear classifiers."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
