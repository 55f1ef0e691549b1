#!/usr/bin/env bash
# Table 2 of the paper: Chinese quatrains, BLEU-2 against held-out poems. MLE, SeqGAN, and a control with D's rewards of other lines.
#   SEEDS="1 2 3" bash experiments/poems.sh POEMS.txt --device cuda
#   bash experiments/poems.sh POEMS.txt --smoke
# POEMS.txt (or a folder of .txt files) has a poem a line; CHARACTERS=28 takes quatrains of 4 × 7 instead of 4 × 5 characters. The
# paper gives no split, sizes or schedule: these are --preset default with its settings for text, 3000 batches of MLE (where NLL_test
# is lowest) and 200 adversarial epochs. Run it again to go on where it was interrupted. The environment is explained in rows.sh.
set -euo pipefail
case ${1:-} in
  '' | -*)
    echo "usage: poems.sh POEMS.txt [--smoke] [FLAGS...]" >&2
    exit 2
    ;;
esac
poems=$1
shift
experiment=poems
. "$(dirname "$0")/rows.sh"

characters=${CHARACTERS:-20}
mkdir -p "$runs"
lines=$runs/quatrains.txt
make_lines "$poems" "CHARACTERS=$characters" "$here/experiments/poems.py" "$poems" --characters "$characters"
data=(--dataset Text --data_path "$lines" --tokens chars --seq_len "$characters")
text_table 2
