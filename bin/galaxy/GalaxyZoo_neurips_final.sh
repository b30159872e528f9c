#!/usr/bin/env bash
# Galaxy Zoo: JPEG, VC, BINCE and CLIP. Settings: conf/experiment/GalaxyZoo_neurips_final*.yaml
experiment=GalaxyZoo_neurips_final
description="Galaxy Zoo (Kaggle account needed): random searches with JPEG, VC, BINCE and CLIP; Pareto front."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch ${experiment}_jpeg
launch ${experiment}_VAE
launch ${experiment}_BINCE
launch ${experiment}_CLIP
aggregate ${experiment}_jpeg
