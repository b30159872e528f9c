#!/usr/bin/env bash
# Rate-distortion curves on the rotation-invariant Banana. Settings: conf/experiment/banana_RD.yaml
experiment=banana_RD
description="Rate-distortion curves on the rotation-invariant Banana."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
