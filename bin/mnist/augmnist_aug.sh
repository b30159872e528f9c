#!/usr/bin/env bash
# Augmented MNIST: what knowing more equivalences is worth (BINCE). Settings: conf/experiment/augmnist_aug*.yaml
experiment=augmnist_aug
description="Augmented MNIST: weak augmentations, strong ones, strong ones and labels (BINCE)."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
