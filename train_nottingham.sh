#!/usr/bin/env bash
# SeqGAN on the Nottingham folk tunes: finds or fetches the MIDI files, then trains. Flags are passed on to main.py:
#   bash train_nottingham.sh --seed 2 --run_name tunes
# The data: --data_dir FOLDER_OR_ZIP; or the zip that NOTTINGHAM_ZIP names; or data/Nottingham, fetched if it is absent.
set -euo pipefail
cd "$(dirname "$0")"

NOTTINGHAM_URL=${NOTTINGHAM_URL:-http://www-etud.iro.umontreal.ca/~boulanni/Nottingham.zip}
NOTTINGHAM_MIRROR=${NOTTINGHAM_MIRROR:-http://www-labs.iro.umontreal.ca/~lisa/deep/data/Nottingham.zip}
PYTHON=${PYTHON:-python}
folder=data/Nottingham

fail() {
  echo "error: $1" >&2
  exit 2
}

own_data=no
for flag in "$@"; do
  case "$flag" in --data_dir | --data_dir=* | --resume | --help) own_data=yes ;; esac
done

if [ "$own_data" = no ] && [ ! -d "$folder" ]; then
  mkdir -p data
  zip=${NOTTINGHAM_ZIP:-data/Nottingham.zip}
  if [ ! -f "$zip" ]; then
    [ -z "${NOTTINGHAM_ZIP:-}" ] || fail "NOTTINGHAM_ZIP: no file $zip"
    echo "fetching $NOTTINGHAM_URL"
    "$PYTHON" - "$zip" "$NOTTINGHAM_URL" "$NOTTINGHAM_MIRROR" <<'FETCH' || fail "could not fetch the tunes: put Nottingham.zip at $PWD/data/Nottingham.zip, or name it by NOTTINGHAM_ZIP"
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
  "$PYTHON" -m music.archive "$zip" "$folder"
fi

# Later flags win, so that a flag of the user's replaces one of these.
case " $* " in *" --resume"*) exec "$PYTHON" main.py "$@" ;; esac
exec "$PYTHON" main.py --dataset Nottingham --pretrain_g_epochs 500 --total_epochs 500 "$@"
