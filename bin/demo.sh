#!/usr/bin/env bash
# Demo: invariant vs. standard compression, on points in the plane and on handwritten digits.
# Takes under 5 minutes on 2 CPU cores; needs neither downloads nor an account.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -gt 0 ]; then
  echo "usage: $0    (the demo takes no arguments)"
  [ "$1" = -h ] && exit 0 || exit 2
fi
trap 'exit 130' INT TERM
exec 3>/dev/null
export TABLES_TO=3 # print tables only at the end
status=0
banana_status=0
digits_status=0
echo "About 4 minutes on 2 CPU cores: the Banana, then handwritten digits."
bin/banana/banana_viz_VIC.sh -m quick -a logger=csv || status=$? banana_status=$?
bin/digits/digits_viz_VIC.sh -m quick -a logger=csv || status=$? digits_status=$?

banana=results/exp_quick_banana_viz_VIC
digits=results/exp_quick_digits_viz_VIC
# table FOLDER STATUS: if the status is above 1, no table was written, and any table on disk is outdated
table() {
  if [ "$2" -gt 1 ] || ! cat "$1/summary.md"; then echo "no table: see the errors above"; fi
}
cat <<END

== Summary

Both compressors were trained on two data sets, without labels and at the same price per bit (beta).
VAE (VC in the paper) reconstructs its input. VIC reconstructs the input without its augmentation,
so it spends no bits on what augmentations change. Both compressed the data into files, and predictors
were trained on the data decoded from these files.

Banana: points in the plane; tasks ignore their angle
$(table "$banana" "$banana_status")

Digits: augmented handwritten digits; tasks ignore the augmentation
$(table "$digits" "$digits_status")

rate: bits per example under the entropy model. coded bits: file size per example; alone: size of an
example coded on its own. M(X): what tasks depend on; for the Banana, the distance from the origin.

Figures:      $banana/figures/
              $digits/figures/
All metrics:  $banana/summarized_metrics_merged.csv
              $digits/summarized_metrics_merged.csv

These files replaced the committed ones; to restore those: git checkout results

Try next:     bin/banana/banana_viz_VIC_trnslt.sh -m quick   other invariances, 3 minutes
              bin/banana/banana_RD.sh -m quick               rate-distortion curves, 10 minutes
END
exit $status
