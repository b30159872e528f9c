#!/usr/bin/env bash
# Augmented MNIST: rate-distortion curves of VC and VIC. Settings: conf/experiment/augmnist_RD*.yaml
experiment=augmnist_RD
description="Augmented MNIST: rate-distortion curves of VC and VIC over 3 seeds."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
