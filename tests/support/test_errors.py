"""How commands end: standard streams that are closed, output that can't be written, SIGTERM."""

import os
import signal
import subprocess
import sys
import threading
import zipfile

import pytest
from helpers.cli import ROOT, TINY, folders, json_lines
from helpers.fake_runs import evaluation, write_run
from helpers.processes import popen
from helpers.tunes import scale

from support.errors import Terminated, UserError, exit_with_one_line

EVERY_CLOSING = [">&-", "2>&-", "<&-", "<&- >&- 2>&-"]


def in_shell(command, redirection, *arguments, cwd):
    """A script in a Python of its own, its streams closed or redirected as a shell does it."""
    words = ["bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, *command, *arguments]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(words, cwd=cwd, env=buffered, capture_output=True, text=True, timeout=60)


INTERRUPTED_WHERE_TORCH_IS_LOADED = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
import {module}
"""


@pytest.mark.parametrize("module", ["main", "sample", "judges"])
def test_ctrl_c_while_torch_is_loaded_ends_with_one_line(module):
    command = [sys.executable, "-c", INTERRUPTED_WHERE_TORCH_IS_LOADED.format(module=module)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "stopped\n")


UNTIL_TORCH_IS_LOADED = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            assert None not in (sys.stdout, sys.stderr)
            descriptor = os.open({path!r}, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, f"{{descriptor}}".encode())
            sys.exit()
sys.meta_path.insert(0, Watch())
import {module}
"""


@pytest.mark.parametrize("module", ["main", "sample", "judges"])
@pytest.mark.parametrize("closing", EVERY_CLOSING)
def test_no_file_gets_the_number_of_a_closed_stream(module, closing, tmp_path):
    """Else what a library prints on descriptor 1 or 2 would go into a checkpoint."""
    code = UNTIL_TORCH_IS_LOADED.format(path=str(tmp_path / "file"), module=module)
    done = in_shell(["-c", code], closing, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "file").read_text()) >= 3


CLOSED = """
import os, sys
sys.path.insert(0, {root!r})
os.close({number})
sys.{name} = None
import {module}
sys.exit({module}.main())
"""


@pytest.mark.parametrize(("number", "name"), [(0, "stdin"), (1, "stdout"), (2, "stderr")])
def test_training_needs_no_open_stream(number, name, tmp_path):
    short = ["--pretrain_g_epochs", "2", "--pretrain_d_epochs", "1", "--total_epochs", "1", *folders(tmp_path)]
    process = popen("-c", CLOSED.format(root=str(ROOT), number=number, name=name, module="main"), *TINY, *short, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert (out == "") == (name == "stdout")
    assert json_lines(tmp_path / "train/metrics.jsonl")[-1]["step"] == 3


def test_a_table_for_a_closed_output_is_refused(tmp_path):
    write_run(tmp_path / "r", [evaluation(120, 9.0, 8.0)], {})
    done = in_shell([str(ROOT / "report.py")], ">&-", "r", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "standard output is closed" in done.stderr
    done = in_shell([str(ROOT / "report.py")], "2>&-", "nothing", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_sequences_for_a_closed_output_are_refused(tmp_path):
    program = CLOSED.format(root=str(ROOT), number=1, name="stdout", module="sample")
    process = popen("-c", program, str(tmp_path / "nothing"), cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (2, 1), err
    assert "--out" in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_output_that_does_not_fit_its_disk_ends_with_one_line(tmp_path):
    """The table is short enough to stay in a buffer until the end."""
    write_run(tmp_path / "r", [evaluation(120, 9.0, 8.0)], {})
    done = in_shell([str(ROOT / "report.py")], "> /dev/full", "r", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device: standard output\n")


def test_output_without_a_reader_ends_quietly(tmp_path):
    write_run(tmp_path / "r", [evaluation(120, 9.0, 8.0)], {})
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(ROOT / "report.py"), "r"]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


TERMINATES_ITSELF = """
import os, signal, sys
sys.path.insert(0, {root!r})
from music import archive
parse = archive.read_tokens
def read_tokens(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return parse(*arguments)
archive.read_tokens = read_tokens
sys.exit(archive.main())
"""


def test_sigterm_leaves_no_temporary_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "tunes.zip", "w") as file:
        for split in ("train", "valid", "test"):
            file.writestr(f"{split}/a.mid", scale())
    process = popen("-c", TERMINATES_ITSELF.format(root=str(ROOT)), "tunes.zip", "tunes", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "", "stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["tunes.zip"]


def kill_this_process():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_does_not_interrupt_the_cleaning(capsys):
    """`timeout` sends one to its child and one to the group that the child is in."""
    cleaned = []

    @exit_with_one_line
    def command():
        try:
            kill_this_process()
        finally:
            kill_this_process()
            cleaned.append(True)

    assert command() == 143
    assert cleaned == [True]
    assert capsys.readouterr().err == "stopped\n"


def test_handlers_of_sigterm_are_as_before_once_a_command_ends():
    within = []

    @exit_with_one_line
    def command():
        within.append(signal.getsignal(signal.SIGTERM))
        raise UserError("broken")

    before = signal.getsignal(signal.SIGTERM)
    assert command() == 2
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(Terminated):
        within[0](signal.SIGTERM, None)
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as for a process that is to survive its terminal's end
    try:
        assert command() == 2
        assert signal.getsignal(signal.SIGTERM) is within[1] is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_a_command_may_run_in_another_thread(capsys):
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(exit_with_one_line(lambda: 5)()))
    thread.start()
    thread.join()
    assert statuses == [5]
    assert capsys.readouterr().err == ""
