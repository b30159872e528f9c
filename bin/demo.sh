#!/usr/bin/env bash
# The tour: invariant against classical compression, on the plane and on real digits.
# Under 5 minutes on 2 CPU cores; no download, no account.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -gt 0 ]; then
  echo "usage: $0    (no arguments: the tour runs as it is)"
  [ "$1" = -h ] && exit 0 || exit 2
fi
trap 'exit 130' INT TERM
status=0
banana_status=0
digits_status=0
bin/banana/banana_viz_VIC.sh -m quick -a logger=csv || status=$? banana_status=$?
bin/digits/digits_viz_VIC.sh -m quick -a logger=csv || status=$? digits_status=$?

banana=results/exp_quick_banana_viz_VIC
digits=results/exp_quick_digits_viz_VIC
# Usage: table FOLDER STATUS; with a status above 1 no table was drawn, and that on disk is older
table() {
  if [ "$2" -gt 1 ] || ! cat "$1/summary.md"; then echo "no table: see the errors above"; fi
}
cat <<END

== Summary

Two compressors were trained without labels at the same price of a bit (beta), on points of a
banana-shaped source and on augmented handwritten digits. VAE (the paper's VC) reconstructs its
input. VIC reconstructs the unaugmented representative of its input, so it keeps only what the
augmentations leave alone. Then data were compressed to files and decoded again, and predictors
were trained on what came out.

Banana: points of the plane whose angle does not matter
$(table "$banana" "$banana_status")

Digits: images whose augmentation does not matter
$(table "$digits" "$digits_status")

bits: theoretical rate per example. coded bits: size of the file / examples. alone: one example coded
by itself. M(X): what tasks depend on, here the distance from the origin.

Tables of all metrics:  $banana/summarized_metrics_merged.csv
                        $digits/summarized_metrics_merged.csv
Figures:                $banana/figures/
                        $digits/figures/

What next: bin/banana/banana_viz_VIC_trnslt.sh -m quick   (other invariances)
           bin/banana/banana_RD.sh -m quick               (rate-distortion curves)
           .venv/bin/python main.py --help, README.md     (everything else)
END
exit $status
