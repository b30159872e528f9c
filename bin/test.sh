#!/usr/bin/env bash
# Installation check: one epoch of VIC and BINCE on the digits. Settings: conf/experiment/test.yaml
experiment="test"
description="Installation check: one epoch of VIC and BINCE on digits; under a minute, no download."
# shellcheck source=bin/utils.sh
source "$(dirname "${BASH_SOURCE[0]}")/utils.sh" "$@"

launch $experiment
aggregate $experiment
