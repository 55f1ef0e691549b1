"""Several processes of one run, started as torchrun does, with a store that outlives them."""

import contextlib
import os
import socket
import subprocess
from datetime import timedelta

import torch.distributed as dist

from helpers.processes import warm_python


class Ranks:
    """The processes of one run.

    Attributes:
        processes: by rank.
    """

    def __init__(self, number, arguments, cwd, store, restarts=0):
        self.store = store
        shared = {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
        shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": restarts}
        self.processes = []
        for rank in range(number):
            added = {name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.processes.append(subprocess.Popen([warm_python(), *arguments], cwd=cwd, env=os.environ | added, **pipes))

    def end(self, timeout=60):
        """Wait for all; returns the exit status, the standard output and the standard error of each."""
        outputs = [process.communicate(timeout=timeout) for process in self.processes]
        return [(process.returncode, *output) for process, output in zip(self.processes, outputs, strict=True)]


@contextlib.contextmanager
def ranks(number, *arguments, cwd, restarts=0, store=None):
    """Inside, Python with these arguments runs in so many processes, killed in the end; a restart has the first start's store."""
    store = store or new_store()
    started = Ranks(number, arguments, cwd, store, restarts)
    try:
        yield started
    finally:
        for process in started.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def new_store():
    """The store of a launcher."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return dist.TCPStore("127.0.0.1", port, is_master=True, timeout=timedelta(seconds=20), wait_for_workers=False)
