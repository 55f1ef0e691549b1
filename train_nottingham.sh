#!/usr/bin/env bash
# SeqGAN on the Nottingham folk tunes: finds or fetches the MIDI files, then trains. Flags are passed on to main.py:
#   bash train_nottingham.sh --seed 2 --run_name tunes
#   bash train_nottingham.sh --preset tuned --run_name tuned
# Ends with songs of the best generator and of the last one, in logs/train/RUN_NAME/samples/best and .../last.
# The data: --data_dir FOLDER_OR_ZIP; or the zip that NOTTINGHAM_ZIP names; or data/Nottingham beside this file, fetched if absent.
# It may be called from any folder: the user's paths, and the logs, are relative to that one.
set -euo pipefail
project=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

NOTTINGHAM_URL=${NOTTINGHAM_URL:-http://www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip}
NOTTINGHAM_MIRROR=${NOTTINGHAM_MIRROR:-http://www-labs.iro.umontreal.ca/~lisa/deep/data/Nottingham.zip}
PYTHON=${PYTHON:-python}
data=$project/data
[ ! "$PWD" -ef "$project" ] || data=data # as main.py's default says it, so that a run goes on after the project was moved
folder=$data/Nottingham

# Whether a switch is on: switched NAME DEFAULT FLAGS. As main.py reads it, a value may follow, after = or as a word of its own.
# Answers yes, no or auto.
switched() {
  local name=$1 value=$2 before='' flag
  shift 2
  for flag in "$@"; do
    if [ "$before" = "$name" ] && [ "${flag#--}" = "$flag" ]; then flag=$name=$flag; fi
    case "$flag" in
      "$name"=[Ff][Aa][Ll][Ss][Ee] | "$name"=[Nn][Oo] | "$name"=0) value=no ;;
      "$name"=[Aa][Uu][Tt][Oo]) value=auto ;;
      "$name" | "$name"=*) value=yes ;;
    esac
    before=$flag
  done
  echo "$value"
}

# The last value of a flag, or nothing: value_of NAME FLAGS.
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

fail() {
  echo "error: $1" >&2
  exit 2
}

resume=$(switched --resume no "$@")
if [ "$resume" = auto ]; then # it has begun where its checkpoint is
  resume=no
  log=$(value_of --log_dir "$@")
  [ -n "$log" ] || log=logs/train/$(value_of --run_name "$@")
  [ ! -f "$log/last.pt" ] || resume=yes
fi
own_data=$resume
other_run=$resume # whether the settings of another run say where the tunes are
[ "$(switched --is_train yes "$@")" = yes ] || other_run=yes
for flag in "$@"; do
  case "$flag" in
    --data_dir | --data_dir=* | --help) own_data=yes ;;
    --start_from | --start_from=*) other_run=yes ;;
  esac
done

if [ "$own_data" = no ] && [ ! -d "$folder" ]; then
  mkdir -p "$data"
  zip=${NOTTINGHAM_ZIP:-$data/Nottingham.zip}
  if [ ! -f "$zip" ]; then
    [ -z "${NOTTINGHAM_ZIP:-}" ] || fail "NOTTINGHAM_ZIP: no file $zip"
    echo "fetching $NOTTINGHAM_URL"
    "$PYTHON" - "$zip" "$NOTTINGHAM_URL" "$NOTTINGHAM_MIRROR" <<'FETCH' || fail "could not fetch the tunes: put Nottingham.zip at $project/data/Nottingham.zip, or name it by NOTTINGHAM_ZIP"
import os, shutil, sys, urllib.request
zip_path, *urls = sys.argv[1:]
partial = f"{zip_path}.{os.getpid()}.partial"  # of its own: runs may be started side by side
for url in urls:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, open(partial, "wb") as file:
            shutil.copyfileobj(answer, file)
        os.replace(partial, zip_path)
        sys.exit(0)
    except OSError:
        if os.path.exists(partial):
            os.remove(partial)
sys.exit(1)
FETCH
  fi
  PYTHONPATH=$project${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" "$project/music/archive.py" "$zip" "$folder"
fi

[ "$resume" = no ] || exec "$PYTHON" "$project/main.py" "$@"
set -- --dataset Nottingham "$@" # later flags win
if [ "$data" != data ] && [ "$own_data" = no ] && [ "$other_run" = no ]; then set -- --data_dir "$folder" "$@"; fi
exec "$PYTHON" "$project/main.py" "$@"
