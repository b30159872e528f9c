#!/usr/bin/env bash
# Augmented MNIST: training the encoder before the bottleneck. Settings: conf/experiment/augmnist_aug_warm*.yaml
experiment=augmnist_aug_warm
description="Augmented MNIST: BINCE and VIC after training the encoder without the bottleneck for 5 epochs."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_VIC
aggregate $experiment
