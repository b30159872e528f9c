#!/usr/bin/env bash
# STL-10: choice of entropy model. Settings: conf/experiment/STL10_rate_variation*.yaml
experiment=STL10_rate_variation
description="STL-10: random search over three entropy models; Pareto front."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
