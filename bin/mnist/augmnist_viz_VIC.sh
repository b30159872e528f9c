#!/usr/bin/env bash
# Augmented MNIST: VC against VIC, the paper's Fig. 1. Settings: conf/experiment/augmnist_viz_VIC*.yaml
experiment=augmnist_viz_VIC
description="Augmented MNIST: coded bits and accuracy of VC and VIC, what they reconstruct; rec_imgs.png."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
