#!/usr/bin/env bash
# Figure 3 of the paper: SeqGAN with other numbers of g-steps, d-steps and passes k over D's data; a table and curves.png.
#   SEEDS="1 2 3" ORACLE=target_params.npz bash experiments/figure3.sh --device cuda
#   bash experiments/figure3.sh --smoke
# Run it again to go on where it was interrupted. With RUNS=logs/table1 it begins from the MLE runs of table1.sh. The environment
# and the flags are explained in rows.sh.
set -euo pipefail
experiment=figure3
. "$(dirname "$0")/rows.sh"

if ! "$PYTHON" -c "import matplotlib" 2>/dev/null; then
  echo "error: the curves need matplotlib: $PYTHON -m pip install -r requirements-dev.txt" >&2
  exit 2
fi

# All settings begin from the same MLE run and the same weights of D. k is also that of D's pre-training, whose d-steps are chosen
# such that D makes the same number of passes before the adversarial phase in every setting as in the preset, where k is 3.
passes=150
if [ "$preset" = smoke ]; then passes=9; fi
settings=("100 1 10" "30 1 30" "1 1 10" "1 5 3") # g, d, k
rows=("MLE=$runs/mle-*")
for setting in "${settings[@]}"; do
  read -r g d k <<<"$setting"
  rows+=("g $g, d $d, k $k=$runs/g$g-d$d-k$k-*")
done

for seed in "${seeds[@]}"; do
  row_defaults=()
  plan mle "$seed" "" --total_epochs 0
  for setting in "${settings[@]}"; do
    read -r g d k <<<"$setting"
    row_defaults=(--pretrain_d_epochs "$(((passes + k - 1) / k))")
    plan "g$g-d$d-k$k" "$seed" "$runs/mle-$seed" --g_steps "$g" --d_steps "$d" --d_epochs "$k"
  done
done
train_planned

"$PYTHON" "$here/report.py" "${rows[@]}" --curves "$runs/curves.png"
