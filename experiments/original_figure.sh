#!/usr/bin/env bash
# The settings of the code whose command line this program keeps (1000 epochs of MLE and 1000 adversarial ones), over seeds, beside
# controls without information; a table and curves.png.
#   SEEDS="1 2 3 4 5" bash experiments/original_figure.sh --threads 2
#   bash experiments/original_figure.sh --smoke
# All rows of a seed begin from the same MLE run, on one oracle. Run it again to go on where it was interrupted. The environment and
# the flags are explained in rows.sh.
set -euo pipefail
experiment=original_figure
. "$(dirname "$0")/rows.sh"
if [ "$preset" = paper ]; then preset=original; fi

for seed in "${seeds[@]}"; do
  plan mle "$seed" "" --total_epochs 0
  plan mle-continued "$seed" "$runs/mle-$seed" --mle_share 1
  plan constant "$seed" "$runs/mle-$seed" --reward constant
  plan random "$seed" "$runs/mle-$seed" --reward random
  plan shuffled "$seed" "$runs/mle-$seed" --reward shuffled
  plan seqgan "$seed" "$runs/mle-$seed"
done
train_planned

rows=("MLE continued=$runs/mle-continued-*" "SeqGAN=$runs/seqgan-*" "D's values of another sequence=$runs/shuffled-*")
rows+=("constant reward=$runs/constant-*" "random reward=$runs/random-*")
if "$PYTHON" -c "import matplotlib" 2>/dev/null; then
  "$PYTHON" "$here/report.py" --final "${rows[@]}" --curves "$runs/curves.png"
else
  "$PYTHON" "$here/report.py" --final "${rows[@]}"
fi
