#!/usr/bin/env bash
# STL-10: shifts in the probability of augmentation. Settings: conf/experiment/STL10_action_dist_shift*.yaml
experiment=STL10_action_dist_shift
description="STL-10: compressors used on data augmented with a different probability; Pareto front."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
