#!/usr/bin/env bash
# Table 3 of the paper: English sentences, BLEU-3 and BLEU-4 against held-out ones. MLE, SeqGAN, and a control.
#   SEEDS="1 2 3" bash experiments/speeches.sh SPEECHES.txt --device cuda
#   bash experiments/speeches.sh SPEECHES.txt --smoke
# SPEECHES.txt (or a folder of .txt files) is any English text; sentences of 3 to 20 words are kept (WORDS=30 for longer ones). With
# --installed in its place, the documentation of installed Python packages is taken. The paper trains on paragraphs of speeches, and
# gives no T, vocabulary, split, sizes or schedule: these are --preset default for text, at most 5000 tokens, 3000 batches of MLE and
# 200 adversarial epochs. Run it again to go on where it was interrupted. The environment is explained in rows.sh.
set -euo pipefail
case ${1:-} in
  --installed) ;;
  '' | -*)
    echo "usage: speeches.sh SPEECHES.txt|--installed [--smoke] [FLAGS...]" >&2
    exit 2
    ;;
esac
speeches=$1
shift
experiment=speeches
. "$(dirname "$0")/rows.sh"

words=${WORDS:-20}
mkdir -p "$runs"
lines=$runs/sentences.txt
make_lines "$speeches" "WORDS=$words" "$here/experiments/sentences.py" "$speeches" --max_words "$words"
data=(--dataset Text --data_path "$lines" --tokens words --seq_len "$words" --max_vocab 5000)
text_table 3
