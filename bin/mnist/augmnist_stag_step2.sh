#!/usr/bin/env bash
# Staggered training, step 2: bottlenecks for the encoders of step 1. Settings: conf/experiment/augmnist_stag_step2*.yaml
experiment=augmnist_stag_step2
description="Augmented MNIST, staggered training: step 2 fits bottlenecks to the encoders of step 1 (run that first)."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
