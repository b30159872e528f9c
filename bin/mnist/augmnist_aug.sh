#!/usr/bin/env bash
# Augmented MNIST: the value of knowing more equivalences (BINCE). Settings: conf/experiment/augmnist_aug*.yaml
experiment=augmnist_aug
description="Augmented MNIST: weak augmentations, strong ones, and strong ones with labels (BINCE)."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
