"""Commands that stand for Slurm's: sbatch starts the batch file's tasks at once, squeue lists those that run, scontrol requeues."""

import stat
import sys
from pathlib import Path

# Each job is a file JOBS/ID with the number of its process; a command's first argument is what it was called as.
SLURM = """#!{python} -IS
import os, pathlib, re, signal, subprocess, sys, time
jobs = pathlib.Path({jobs!r})
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
def start(file, job):
    number, _, index = job.partition("_")
    array = dict(SLURM_ARRAY_JOB_ID=number, SLURM_ARRAY_TASK_ID=index) if index else {{}}
    started = subprocess.Popen(["bash", file], env={{**os.environ, "SLURM_JOB_ID": number, "FILE": file, **array}},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    (jobs / job).write_text(str(started.pid))
def alive(job):
    try:
        state = pathlib.Path("/proc", (jobs / job).read_text(), "stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
if name == "sbatch":
    text = pathlib.Path(words[0]).read_text()
    if "nobody" in text:
        sys.exit("sbatch: error: invalid partition specified: nobody")
    (jobs.parent / "batch.sh").write_text(text)
    last = re.search("--array=0-([0-9]+)", text)
    number = str(100 + len(list(jobs.iterdir())))
    print("Submitted batch job", number, flush=True)
    for index in range(int(last[1]) + 1) if last else [None]:
        start(words[0], number if index is None else f"{{number}}_{{index}}")
elif name == "srun":
    while words[0].startswith("--"):
        words = words[2 if words[0] in ("--output", "--error") else 1:]
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    (jobs / "_".join([os.environ["SLURM_JOB_ID"], *([index] if index else [])])).write_text(str(os.getpid()))  # signals are for it
    log = os.open(jobs.parent / "srun.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    os.execvp(words[0], words)
elif name == "squeue":
    print(*(path.name for path in jobs.iterdir() if alive(path.name)), sep="\\n")
elif name == "scontrol":
    job, file = words[1], os.environ["FILE"]
    if os.fork() == 0:
        while alive(job):
            time.sleep(0.02)
        start(file, job)
elif name == "scancel" and "--signal=INT" in words and alive(words[-1]):
    os.kill(int((jobs / words[-1]).read_text()), signal.SIGINT)
"""
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")


def make_slurm(folder: Path) -> Path:
    """Write the commands into a folder; returns the folder of the jobs, in which the last batch file is beside it."""
    (folder / "bin").mkdir()
    (folder / "jobs").mkdir()
    for name in COMMANDS:
        path = folder / "bin" / name
        path.write_text(SLURM.format(python=sys.executable, jobs=str(folder / "jobs")))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder / "jobs"
