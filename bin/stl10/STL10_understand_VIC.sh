#!/usr/bin/env bash
# STL-10: effect of beta, the weight of the rate. Settings: conf/experiment/STL10_understand_VIC*.yaml
experiment=STL10_understand_VIC
description="STL-10: VC, VIC and BINCE at seven values of beta, the weight of the rate."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_BINCE
aggregate $experiment
