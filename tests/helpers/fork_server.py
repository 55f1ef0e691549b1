"""A Python that has loaded the program, and forks for each command that it is sent: loading takes torch seconds.

`python fork_server.py SOCKET` serves until its standard input ends. The commands come from `helpers.processes.CLIENT`, which stands
for `python` and passes on its arguments, folder, environment and standard streams. The fork runs the command as a Python of its own
would, with signals, exit status and streams of its own. Two things differ: the modules are loaded already, from the project's
folder, and are not torn down in the end, which takes as long again.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
MODULES = ("main", "sample", "music.data_set", "torch._dynamo", "matplotlib.pyplot")  # optimisers load torch._dynamo


def serve(listener: socket.socket) -> dict | None:
    """Wait for commands; returns None in the end, and in the fork that is to run a command that command."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return keep(connection)
        connection.close()


def keep(connection: socket.socket) -> dict:
    """Fork the command's process, tell the client its number and its end, and end it with the client; returns in that process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 2**20, 3)
    while not message.endswith(b"\n"):
        more = connection.recv(2**20)
        if not more:  # the client was killed before it had sent its command
            os._exit(1)
        message += more
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        return json.loads(message)
    for stream in [*range(3), *streams]:  # a pipe ends when its last writer has closed it
        os.close(stream)
    connection.sendall(f"{child}\n".encode())
    status = None
    while status is None:
        done, result = os.waitpid(child, os.WNOHANG)
        if done:
            status = result
        elif select.select([connection], [], [], 0.01)[0]:
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(OSError):
        connection.sendall(f"{status}\n".encode())
    os._exit(0)


def run(command: dict) -> None:
    """As `python ARGUMENTS` does."""
    first, *rest = command["arguments"]
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    if first in ("-c", "-"):
        program, rest = (rest[0], rest[1:]) if first == "-c" else (sys.stdin.read(), rest)
        sys.path[0], sys.argv = "", [first, *rest]
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0], sys.argv = os.path.dirname(first), [first, *rest]
        runpy.run_path(first, run_name="__main__")


def finish(command: dict) -> None:
    """Run the command and end the process, as Python does but for the modules."""
    status = 0
    try:
        run(command)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        traceback.print_exc()
        status = 120
    os._exit(status)


def main() -> None:
    """Load the program, then serve."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"{sys.argv[1]}.new")
        listener.listen()
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])  # from here on clients find it; they wait while the program is loaded
        for module in MODULES:
            with contextlib.suppress(ImportError):  # a command that needs it will say so
                importlib.import_module(module)
        gc.freeze()  # or the collector would write to, and so copy, each fork's memory
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        command = serve(listener)
    if command is not None:
        finish(command)


if __name__ == "__main__":
    main()
