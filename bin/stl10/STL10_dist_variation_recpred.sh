#!/usr/bin/env bash
# STL-10: choice of distortion, with predictors on reconstructions. Settings: conf/experiment/STL10_dist_variation_recpred*.yaml
experiment=STL10_dist_variation_recpred
description="STL-10: random search over distortions, with predictors on reconstructions; Pareto front."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_classical
aggregate $experiment
