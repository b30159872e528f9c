#!/usr/bin/env bash
# STL-10 with latent images and a spatial hyperprior. Settings: conf/experiment/STL10_balle*.yaml
experiment=STL10_balle
description="STL-10: VIC with networks from learned image compression."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
aggregate $experiment
