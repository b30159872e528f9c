#!/usr/bin/env bash
# MobileNetV2 on MNIST. Settings: conf/experiment/mobilenet_mnist_klt*.yaml
experiment=mobilenet_mnist_klt
description="MobileNetV2 on MNIST: bits saved at equal accuracy by a KLT before the bottleneck."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_plain
aggregate $experiment
