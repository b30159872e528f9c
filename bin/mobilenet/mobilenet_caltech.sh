#!/usr/bin/env bash
# MobileNetV2 on the Caltech-101 photos. Settings: conf/experiment/mobilenet_caltech*.yaml
experiment=mobilenet_caltech
description="MobileNetV2 on Caltech-101: bottlenecks with and without a KLT, compared with plain formats and PCA."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_plain
launch ${experiment}_pca
aggregate $experiment
