#!/usr/bin/env bash
# CLIP: linear classifiers on raw features. Settings: conf/experiment/clip_raw_linear_eval.yaml
experiment=clip_raw_linear_eval
description="CLIP: linear classifiers on uncompressed features."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
