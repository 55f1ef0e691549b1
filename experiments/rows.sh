# Sourced by the scripts of the paper's tables, which set `experiment`: one run for each row and seed, skipped if it is finished, resumed
# if it was interrupted. Reads the environment and the script's flags:
#   SEEDS="1 2 3"   one run of each row for each (default: 1)
#   RUNS=FOLDER     where the runs go (default: logs/$experiment)
#   ORACLE=FILE     the authors' oracle (--oracle_params); without it, and with --smoke, one random oracle for all seeds
#   PYTHON=COMMAND  default: python
#   SWEEP="FLAGS"   of sweep.py, by which runs go side by side where submitit is installed and there is more than one core (or FLAGS
#                   are given), for example "--jobs 2" or "--per_device 4"; SWEEP=no: one after another, as without submitit
#   --smoke         as the first flag: --preset smoke, in a folder of its own, to check that the script works
# Sets `preset` and `data`, the flags of the data set, which a script on other data replaces.
# All other flags are passed on to every run; those that define a row come after them and take precedence.
PYTHON=${PYTHON:-python}
here=$(cd "$(dirname "$0")/.." && pwd)
runs=${RUNS:-logs/$experiment}
read -r -d '' -a seeds <<<"${SEEDS:-1}" || true
preset=paper
if [ "${1:-}" = --smoke ]; then
  preset=smoke
  runs=$runs-smoke
  shift
fi
flags=("$@")
data=(--oracle_seed 1)
if [ -n "${ORACLE:-}" ] && [ "$preset" = paper ]; then data=(--oracle_params "$ORACLE"); fi
row_defaults=() # a row's own defaults, which flags may replace
# without submitit, or with one core, the runs go one after another
several="import os, submitit; raise SystemExit(len(os.sched_getaffinity(0)) < 2 and not '${SWEEP:+given}')"
side_by_side=
if [ "${SWEEP:-}" != no ] && "$PYTHON" -c "$several" 2>/dev/null; then side_by_side=yes; fi

# value_of NAME FLAGS...: the last value of a flag, or nothing.
value_of() {
  local name=$1 value='' before='' flag
  shift
  for flag in "$@"; do
    [ "$before" != "$name" ] || value=$flag
    case "$flag" in "$name"=*) value=${flag#*=} ;; esac
    before=$flag
  done
  echo "$value"
}

# finished FOLDER FLAGS...: whether a run has the numbers of its end, those of the judges that its flags ask for included.
finished() {
  local folder=$1 judges
  shift
  judges=$(value_of --judges "$@")
  [ -f "$folder/final.json" ] && { [ "${judges:-0}" = 0 ] || [ -f "$folder/judges.json" ]; }
}

# train ROW SEED START FLAGS...: the run $runs/ROW-SEED; START is the folder of the run that it begins from, or empty.
train() {
  local name=$1-$2 seed=$2 start=$3
  local folder=$runs/$name
  shift 3
  if finished "$folder" ${flags[@]+"${flags[@]}"} "$@"; then
    echo "== $folder is finished"
    return
  fi
  echo "== $folder"
  if [ -f "$folder/last.pt" ]; then
    "$PYTHON" "$here/main.py" --resume ${flags[@]+"${flags[@]}"} "$@" --log_dir "$folder"
    return
  fi
  # a run without a checkpoint was interrupted before there was anything to go on from
  if [ -e "$folder/metrics.jsonl" ]; then set -- "$@" --overwrite; fi
  if [ -n "$start" ]; then set -- "$@" --start_from "$start"; fi
  "$PYTHON" "$here/main.py" --preset "$preset" "${data[@]}" ${row_defaults[@]+"${row_defaults[@]}"} ${flags[@]+"${flags[@]}"} "$@" \
    --seed "$seed" --log_dir "$folder" --eval_log_dir "$runs/eval/$name"
}

# plan ROW SEED START FLAGS...: as train, or later, by train_planned, where the runs go side by side. START must end with -SEED, and the
# rows must be the same for each seed.
planned=()
plan() {
  if [ -z "$side_by_side" ]; then
    train "$@"
  elif [ "$2" = "${seeds[0]}" ]; then
    local name=$1 start=$3
    if [ -n "$start" ]; then start="${start%"-$2"}-{seed}"; fi
    shift 3
    if [ -n "$start" ]; then set -- "$@" --start_from "$start"; fi
    planned+=(--row "$name" ${row_defaults[@]+"${row_defaults[@]}"} ${flags[@]+"${flags[@]}"} "$@")
  fi
}

train_planned() {
  if [ -z "$side_by_side" ]; then return; fi
  # SWEEP holds several words
  "$PYTHON" "$here/sweep.py" --folder "$runs" --seeds "$(IFS=, && echo "${seeds[*]}")" --python "$PYTHON" --report False ${SWEEP:-} -- \
    --preset "$preset" "${data[@]}" "${planned[@]}"
}

# make_lines TEXTS SETTING COMMAND...: the file $lines, made by a Python command from TEXTS (a file, a folder, or a flag), or as it is where
# it was made from the same texts with the same setting before.
make_lines() {
  local source=$1 setting=$2
  shift 2
  if [ -e "$source" ]; then source=$(cd "$(dirname "$source")" && pwd)/$(basename "$source"); fi
  source="$source, $setting"
  if [ -f "$lines" ]; then
    if [ -f "$lines.source" ] && [ "$(cat "$lines.source")" != "$source" ]; then
      echo "error: $lines was made from $(cat "$lines.source"), not from $source: give another RUNS=FOLDER" >&2
      exit 2
    fi
    return
  fi
  echo "$source" >"$lines.source"
  "$PYTHON" "$@" --out "$lines"
}

# text_table TABLE: the rows of a table on text, all from the MLE run of their seed, and the table beside the paper's.
text_table() {
  if [ "$preset" = paper ]; then
    preset=default
    row_defaults=(--pretrain_g_epochs 3000 --total_epochs 200 --eval_every 20)
  fi
  local seed tests=()
  for seed in "${seeds[@]}"; do
    plan mle "$seed" "" --total_epochs 0
    plan seqgan "$seed" "$runs/mle-$seed"
    plan shuffled "$seed" "$runs/mle-$seed" --reward shuffled
  done
  train_planned
  if [ "${#seeds[@]}" -gt 1 ]; then tests=(--ttest SeqGAN MLE --ttest "shuffled rewards" MLE); fi
  "$PYTHON" "$here/report.py" --table "$1" --final "MLE=$runs/mle-*" "SeqGAN=$runs/seqgan-*" \
    "shuffled rewards=$runs/shuffled-*" ${tests[@]+"${tests[@]}"}
}
