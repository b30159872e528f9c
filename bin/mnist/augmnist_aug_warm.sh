#!/usr/bin/env bash
# Augmented MNIST: training the encoder before the bottleneck counts. Settings: conf/experiment/augmnist_aug_warm*.yaml
experiment=augmnist_aug_warm
description="Augmented MNIST: warming up the encoder for 5 epochs, BINCE and VIC."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_VIC
aggregate $experiment
