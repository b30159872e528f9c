#!/usr/bin/env bash
# Staggered training, step 1: encoders without a bottleneck. Settings: conf/experiment/augmnist_stag_step1*.yaml
experiment=augmnist_stag_step1
description="Augmented MNIST, staggered training: step 1 trains encoders (VIC, BINCE) and exports them."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
