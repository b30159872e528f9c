#!/usr/bin/env bash
# STL-10: choice of distortion, with predictors on representations. Settings: conf/experiment/STL10_dist_variation_featpred*.yaml
experiment=STL10_dist_variation_featpred
description="STL-10: random search over distortions, with predictors on representations; Pareto front."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_BINCE
aggregate $experiment
