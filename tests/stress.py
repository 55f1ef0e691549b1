"""Hours of what the test suite does for seconds: `python tests/stress.py --kills 1000 --inputs 10000`.

Kills runs on every data set at random moments and file operations until they end, and compares them with unbroken ones; gives every
reader of files changed and crafted inputs. Prints what it counts, and ends with status 1 where a run ended differently, or an input
was read wrongly, ended in a traceback or took too long. Such inputs are kept in --folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.fuzz import fuzz
from helpers.kills import KINDS, kill_runs
from helpers.readers import all_readers


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Kill runs, and give readers bad input, for as long as asked.")
    parser.add_argument("--kills", type=int, default=1000, help="of runs, in all (default: %(default)s)")
    parser.add_argument("--inputs", type=int, default=10_000, help="for each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all of it (default: %(default)s)")
    parser.add_argument("--only", metavar="TEXT", default="", help="only readers and kinds of run with this in their names")
    parser.add_argument("--folder", type=Path, help="an empty one for runs and inputs (default: a temporary one)")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="stress"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # of the runs that are killed
    faults = 0
    names = [name for name in KINDS if args.only in name]
    if args.kills and names:
        start = time.monotonic()
        counts = kill_runs(args.kills, args.seed, folder, print, names=names)
        faults += sum(number for end, number in counts.items() if end not in ("equal", "kills"))
        print(f"kills: {dict(counts)}, {time.monotonic() - start:.0f} s", flush=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "readers/cache")
    for reader in all_readers(folder) if args.inputs else []:
        if args.only in reader.name:
            start = time.monotonic()
            counts = fuzz(reader, args.inputs, args.seed, folder, print)
            faults += counts["wrong"] + counts["hung"]
            print(f"{reader.name}: {dict(sorted(counts.items()))}, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{faults} faults; files in {folder}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
