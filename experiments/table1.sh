#!/usr/bin/env bash
# Table 1 of the paper: NLL_oracle of every method, and below it two controls whose rewards carry no information.
#   SEEDS="1 2 3" ORACLE=target_params.npz bash experiments/table1.sh --device cuda
#   bash experiments/table1.sh --smoke
# Run it again to go on where it was interrupted. The environment and the flags are explained in rows.sh.
set -euo pipefail
experiment=table1
. "$(dirname "$0")/rows.sh"

for seed in "${seeds[@]}"; do
  plan random "$seed" "" --pretrain_g_epochs 0 --total_epochs 0
  plan mle "$seed" "" --total_epochs 0
  plan scheduled "$seed" "" --scheduled_sampling 0.002 --total_epochs 0
  # the methods of the adversarial phase begin from the same MLE run
  mle=$runs/mle-$seed
  plan pg-bleu "$seed" "$mle" --reward bleu
  plan seqgan "$seed" "$mle"
  plan reward-constant "$seed" "$mle" --reward constant
  plan reward-random "$seed" "$mle" --reward random
done
train_planned

tests=()
if [ "${#seeds[@]}" -gt 1 ]; then
  for row in MLE "MLE, early-stopped" "Scheduled sampling" PG-BLEU "constant reward" "random reward"; do
    tests+=(--ttest "$row" SeqGAN)
  done
fi
"$PYTHON" "$here/report.py" "Random=$runs/random-*" "MLE=$runs/mle-*" "Scheduled sampling=$runs/scheduled-*" \
  "PG-BLEU=$runs/pg-bleu-*" "SeqGAN=$runs/seqgan-*" "constant reward=$runs/reward-constant-*" \
  "random reward=$runs/reward-random-*" --early_stopped MLE ${tests[@]+"${tests[@]}"}
