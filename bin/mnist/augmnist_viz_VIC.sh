#!/usr/bin/env bash
# Augmented MNIST: VC against VIC, as in the paper's Fig. 1. Settings: conf/experiment/augmnist_viz_VIC*.yaml
experiment=augmnist_viz_VIC
description="Augmented MNIST: coded bits, accuracy and reconstructions (rec_imgs.png) of VC and VIC."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
