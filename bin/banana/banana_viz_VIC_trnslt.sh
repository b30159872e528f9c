#!/usr/bin/env bash
# Banana, invariant to translations along each axis: VC against VIC. Settings: conf/experiment/banana_viz_VIC_trnslt.yaml
experiment=banana_viz_VIC_trnslt
description="Banana, invariant to translations along each axis: VC against VIC."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
