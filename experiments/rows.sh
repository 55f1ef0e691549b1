# Sourced by table1.sh and figure3.sh, which set `experiment`: one run for each row and seed, skipped if it is finished, resumed
# if it was interrupted. Reads the environment and the script's flags:
#   SEEDS="1 2 3"   one run of each row for each (default: 1)
#   RUNS=FOLDER     where the runs go (default: logs/$experiment)
#   ORACLE=FILE     the authors' oracle (--oracle_params); without it, and with --smoke, one random oracle for all seeds
#   PYTHON=COMMAND  default: python
#   --smoke         as the first flag: --preset smoke, in a folder of its own, to check that the script works
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
oracle=(--oracle_seed 1)
if [ -n "${ORACLE:-}" ] && [ "$preset" = paper ]; then oracle=(--oracle_params "$ORACLE"); fi
row_defaults=() # a row's own defaults, which flags may replace

# train ROW SEED START FLAGS...: the run $runs/ROW-SEED; START is the folder of the run that it begins from, or empty.
train() {
  local name=$1-$2 seed=$2 start=$3
  local folder=$runs/$name
  shift 3
  if [ -f "$folder/final.json" ]; then
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
  "$PYTHON" "$here/main.py" --preset "$preset" "${oracle[@]}" ${row_defaults[@]+"${row_defaults[@]}"} ${flags[@]+"${flags[@]}"} "$@" \
    --seed "$seed" --log_dir "$folder" --eval_log_dir "$runs/eval/$name"
}
