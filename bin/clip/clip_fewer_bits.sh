#!/usr/bin/env bash
# CLIP: rate against accuracy of several bottlenecks. Settings: conf/experiment/clip_fewer_bits*.yaml
experiment=clip_fewer_bits
description="CLIP on STL10: bits and accuracy of bottlenecks, with and without a KLT and RDO, and of transform coding."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/../utils.sh" "$@"

launch $experiment
launch ${experiment}_transform
aggregate $experiment
