#!/usr/bin/env bash
# Rotation-invariant Banana: VC against VIC. Settings: conf/experiment/banana_viz_VIC.yaml
experiment=banana_viz_VIC
description="Rotation-invariant Banana: VC against VIC."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
