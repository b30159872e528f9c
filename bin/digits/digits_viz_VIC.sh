#!/usr/bin/env bash
# Augmented handwritten digits: VC, VIC and classical codecs. Settings: conf/experiment/digits_*.yaml
experiment=digits_viz_VIC
description="Handwritten digits: coded bits, accuracy and reconstructions (rec_imgs.png) of VC, VIC, PNG, JPEG and WebP."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch digits_classical
aggregate $experiment
