#!/usr/bin/env bash
# What adversarial training adds, by data set: the faithful recipe and the preset `tuned`, each with its controls, and judges.
#   SEEDS="1 2 3" bash experiments/recipes.sh music Nottingham.zip --threads 2
#   SEEDS="1 2 3" bash experiments/recipes.sh oracle
#   SEEDS="1 2" ORACLE=target_params.npz bash experiments/recipes.sh fixed
#   bash experiments/recipes.sh text lines.txt
# `oracle` draws fresh batches, `fixed` trains on 10,000 sequences as the paper does. FAITHFUL="" leaves out the rows of the faithful
# recipe, JUDGES=4 says how many judges. Run it again to go on where it was interrupted. The environment and the flags are
# explained in rows.sh; there is no --smoke here.
set -euo pipefail
usage() {
  echo "usage: recipes.sh music|text FILE [FLAGS...], or recipes.sh oracle|fixed [FLAGS...]" >&2
  exit 2
}
[ $# -gt 0 ] || usage
kind=$1
shift
scripts=$(cd "$(dirname "$0")" && pwd)
case "$kind" in
  music | text)
    case ${1:-} in '' | -*) usage ;; esac
    file=$1
    shift
    ;;
  oracle | fixed) ;;
  *)
    echo "error: $kind is none of music, oracle, fixed, text" >&2
    exit 2
    ;;
esac
experiment=recipes-$kind
. "$scripts/rows.sh"
if [ "$preset" = smoke ]; then
  echo "error: --smoke: recipes.sh has no small rows" >&2
  exit 2
fi
judges=${JUDGES:-4}
mle=(--pretrain_g_epochs 1000 --total_epochs 0)
seqgan=(--total_epochs 50 --eval_every 5)
tuned=()
d_epochs=()
faithful=original
case "$kind" in
  music)
    data=(--dataset Nottingham --data_dir "$file")
    mle=(--pretrain_g_epochs 500 --total_epochs 0)
    ;;
  text) data=(--dataset Text --data_path "$file") ;;
  oracle) data=(--oracle_seed 1) ;;
  fixed)
    data=("${data[@]}" --train_size 10000)
    mle=(--pretrain_g_epochs 120 --total_epochs 0 --eval_every 5)
    # passes instead of batches: 20 of 156 batches
    tuned=(--pretrain_g_epochs 20 --eval_every 1 --g_emb_dropout 0.1 --g_dropout 0.2 --g_hidden_dim 32 --g_init normal)
    d_epochs=(--pretrain_d_epochs 3) # 9 passes over all sequences; D soon knows those that it is trained on by heart
    faithful=paper
    ;;
esac

judge() { # judge FOLDER NUMBER
  if [ ! -f "$1/judges.json" ]; then "$PYTHON" "$here/judges.py" "$1" --judges "$2" --overwrite ${threads[@]+"${threads[@]}"}; fi
}

threads=$(value_of --threads ${flags[@]+"${flags[@]}"})
threads=(${threads:+--threads "$threads"})
for seed in "${seeds[@]}"; do
  if [ "${FAITHFUL-yes}" = yes ]; then
    preset=$faithful
    train mle "$seed" "" "${mle[@]}"
    train seqgan "$seed" "$runs/mle-$seed" "${seqgan[@]}"
  fi
  preset=tuned
  gentle=(--total_epochs 150 --eval_every 15 --judges 0 ${d_epochs[@]+"${d_epochs[@]}"})
  train tuned "$seed" "" ${tuned[@]+"${tuned[@]}"} --judges 0
  train tuned-pg "$seed" "$runs/tuned-$seed" "${gentle[@]}"
  train tuned-shuffled "$seed" "$runs/tuned-$seed" "${gentle[@]}" --reward shuffled
  train tuned-continued "$seed" "$runs/tuned-$seed" "${gentle[@]}" --mle_share 1
  if [ ! -d "$runs/tuned-one-$seed" ]; then
    rm -rf "$runs/copy-$seed"
    cp -r "$runs/tuned-$seed" "$runs/copy-$seed"
    mv "$runs/copy-$seed" "$runs/tuned-one-$seed"
  fi
  judge "$runs/tuned-one-$seed" 1
  judge "$runs/tuned-$seed" "$judges"
done

rows=()
if [ "${FAITHFUL-yes}" = yes ]; then rows=("MLE, $faithful=$runs/mle-*" "SeqGAN, $faithful=$runs/seqgan-*"); fi
rows+=("tuned=$runs/tuned-[0-9]*" "tuned, one judge=$runs/tuned-one-*" "tuned + policy gradient=$runs/tuned-pg-*")
rows+=("tuned + shuffled rewards=$runs/tuned-shuffled-*" "tuned + MLE continued=$runs/tuned-continued-*")
"$PYTHON" "$here/report.py" --final --resampled "${rows[@]}"
