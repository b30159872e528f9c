#!/usr/bin/env bash
# Rotation-invariant Banana with the contrastive compressor BINCE. Settings: conf/experiment/banana_viz_BINCE.yaml
experiment=banana_viz_BINCE
description="Rotation-invariant Banana with the contrastive compressor BINCE."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
