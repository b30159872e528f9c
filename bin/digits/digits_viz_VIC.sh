#!/usr/bin/env bash
# Augmented handwritten digits: VC, VIC and classical codecs. Settings: conf/experiment/digits_*.yaml
experiment=digits_viz_VIC
description="Handwritten digits: VC, VIC, PNG, JPEG and WebP: coded bits against accuracy; rec_imgs.png."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch digits_classical
aggregate $experiment
