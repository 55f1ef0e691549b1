"""Commands as processes of their own: for signals, exit statuses, closed pipes and shell scripts."""

import atexit
import functools
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers.cli import ROOT, TINY

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({path!r})
command = dict(arguments=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
text = (json.dumps(command) + "\\n").encode()
sent = socket.send_fds(connection, [text], [0, 1, 2])
connection.sendall(text[sent:])
for stream in range(3):
    os.close(stream)
answers = connection.makefile()
child = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(child, number))
status = int(answers.readline())
if os.WIFSIGNALED(status):
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
os._exit(os.WEXITSTATUS(status))
"""

SIGNALS_ITSELF = """
import os, sys
sys.path.insert(0, {root!r})
import main
from running.run_log import RunLog
log_epoch = RunLog.training
def training(self, phase, epoch, *rest):
    log_epoch(self, phase, epoch, *rest)
    if (phase, epoch) == {after!r}:
        os.kill(os.getpid(), {number})
RunLog.training = training
sys.exit(main.main())
"""


@functools.cache
def warm_python() -> str:
    """A command that stands for `python`, with the program's modules loaded already: see helpers/fork_server.py."""
    folder = Path(tempfile.mkdtemp(prefix="seqgan"))
    path, client = folder / "socket", folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, path=str(path)))
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    server = subprocess.Popen([sys.executable, str(ROOT / "tests/helpers/fork_server.py"), str(path)], stdin=subprocess.PIPE)

    def end():
        server.communicate()
        shutil.rmtree(folder)

    atexit.register(end)
    while not path.exists():
        assert server.poll() is None
        time.sleep(0.01)
    return str(client)


def start(*flags: str, cwd: Path) -> subprocess.Popen:
    """`python main.py` at the tiny size; later flags win."""
    return popen(str(ROOT / "main.py"), *TINY, *flags, cwd=cwd)


def start_signalled(*flags: str, after: tuple[str, int], number: int, cwd: Path) -> subprocess.Popen:
    """The same, but once an epoch (phase, epoch) is in the logs the process sends this signal to itself."""
    return popen("-c", SIGNALS_ITSELF.format(root=str(ROOT), after=after, number=int(number)), *TINY, *flags, cwd=cwd)


def popen(*arguments: str, cwd: Path) -> subprocess.Popen:
    """Python with these arguments."""
    return subprocess.Popen([warm_python(), *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(process: subprocess.Popen, log_dir: Path, epochs: int) -> None:
    """Wait until a running process has logged this many epochs, of all phases together."""
    path = log_dir / "training.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_text().count("\n") >= epochs:
            return
        time.sleep(0.01)
    raise AssertionError(f"ended too early: {process.communicate()}")
