"""Checkpoints that were damaged, or made by a stranger: refused with one line, before anything is loaded from them."""

import contextlib
import io
import pickle
import random
import re
import shlex
import shutil
import struct
import subprocess
import zipfile

import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, run, same, snapshot, trained_state
from helpers.mutations import flipped, mutated

import main
import sample
from running.checkpoint import FORMAT, load_checkpoint, load_run, save_checkpoint
from support.errors import UserError

FLIPS, MUTATIONS = 300, 60


@pytest.fixture
def own(finished, tmp_path):
    """A finished run of the test's own."""
    shutil.copytree(finished, tmp_path / "runs")
    payload = torch.load(tmp_path / "runs/train/last.pt", weights_only=True)
    payload["folders"] = {key: str(tmp_path / "runs" / name) for key, name in (("log", "train"), ("eval", "eval"))}
    torch.save(payload, tmp_path / "runs/train/last.pt")
    return tmp_path / "runs"


def test_no_flipped_bit_is_read_as_something_else(finished, tmp_path):
    path, rng, refused = tmp_path / "last.pt", random.Random(1), 0
    data = (finished / "train/last.pt").read_bytes()
    path.write_bytes(data)
    original = load_run(path)
    for _ in range(FLIPS):
        path.write_bytes(flipped(data, rng))
        try:
            read = load_run(path)
        except UserError:
            refused += 1
        else:
            assert same(read, original)
    assert refused > 0.7 * FLIPS  # the rest are dates and filling bytes


def test_no_flipped_bit_in_the_list_of_members_is_read_as_something_else(tmp_path):
    """Of a member that the list calls a folder, torch's reader reads nothing: the weights would be what the memory held."""
    path, payload = tmp_path / "last.pt", {"x": torch.arange(50.0)}
    save_checkpoint(path, payload)
    data = path.read_bytes()
    first = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data/0"))
    for bit in range(8 * first, 8 * (data.rindex(b"archive/data/0") + 14)):
        path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        with contextlib.suppress(UserError):
            assert torch.equal(load_checkpoint(path)["x"], payload["x"]), bit


def one_weight_changed(path):
    """Changes the bytes of a weight in the file, and nothing else."""
    weights = load_run(path)["state"]["generator"]["embed.weight"].numpy().tobytes()
    data = path.read_bytes()
    assert data.count(weights) >= 1
    place = data.index(weights)
    path.write_bytes(data[: place + 3] + bytes([data[place + 3] ^ 64]) + data[place + 4 :])


def test_the_checkpoint_before_is_kept_and_named_where_the_last_one_is_damaged(finished, tmp_path, capsys):
    flags = ["--pretrain_g_epochs", "6", "--total_epochs", "0", "--save_every", "2"]
    assert run(*flags, *folders(tmp_path)) == 0
    log_dir = tmp_path / "train"
    whole = trained_state(log_dir)
    before = torch.load(log_dir / "previous.pt", weights_only=True)
    assert before["state"]["counts"]["epochs_done"]["pretrain_g"] == 4
    one_weight_changed(log_dir / "last.pt")
    left = snapshot(tmp_path)
    commands = [
        (main.main, "--resume", "--log_dir", str(log_dir)),
        (main.main, "--is_train", "False", "--log_dir", str(log_dir)),
        (main.main, "--start_from", str(log_dir), *folders(tmp_path / "new")),
        (sample.main, str(log_dir), "--which", "last"),
    ]
    for command in commands:
        capsys.readouterr()
        assert call(*command) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and "damaged: its checksums do not match" in text
        assert snapshot(tmp_path) == left
    move, resume = re.search(r"go on from the checkpoint before it: (.*) && python main\.py (.*)", text).groups()
    subprocess.run(move, shell=True, check=True)
    assert call(main.main, *shlex.split(resume)) == 0
    assert same(trained_state(log_dir), whole)
    assert len((log_dir / "training.jsonl").read_text().splitlines()) == 6


def test_nothing_is_named_where_there_is_no_checkpoint_before(own, capsys):
    (own / "train/previous.pt").unlink()
    one_weight_changed(own / "train/last.pt")
    assert call(main.main, "--resume", "--log_dir", str(own / "train")) == 2
    assert "before it" not in capsys.readouterr().err


def test_judges_and_best_models_have_checksums_too(own):
    data = (own / "train/best.pt").read_bytes()
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    (own / "train/best.pt").write_bytes(damaged)
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(own / "train/best.pt")


def short_moments(payload):
    """The fused Adam would write past their end."""
    payload["state"]["optimizer_mle"]["state"][0]["exp_avg"] = torch.zeros(1)


def moments_of_one_number(payload):
    """Of the right shape, with all elements at one place in the memory."""
    old = payload["state"]["optimizer_mle"]["state"][0]["exp_avg"]
    payload["state"]["optimizer_mle"]["state"][0]["exp_avg"] = torch.zeros(1).expand(old.numel()).view(old.shape)


def negative_second_moments(payload):
    payload["state"]["optimizer_discriminator"]["state"][1]["exp_avg_sq"] -= 1


def a_weight_that_is_no_number(payload):
    payload["state"]["discriminator"]["output.bias"][0] = float("nan")


def tokens_outside_the_vocabulary(payload):
    payload["data"]["held_out"][0, 0] = 20


def sizes_of_a_thousand_gigabytes(payload):
    payload["args"]["vocab_size"] = payload["args"]["g_hidden_dim"] = 500_000


def a_measure_without_a_name(payload):
    payload["data"]["reference"][1, 2] = 0.5


def moments_in_another_order(payload):
    """Torch gives a weight the moments of its place in this list: of other shapes than were compared."""
    payload["state"]["optimizer_policy"]["param_groups"][0]["params"].reverse()


def a_random_stream_that_reads_past_its_end(payload):
    payload["state"]["streams"]["rollouts"][8:24] = torch.tensor(list(struct.pack("<iiQ", 624, 1, 624)))


def moments_with_a_negative_bit(payload):
    moments = payload["state"]["optimizer_mle"]["state"][0]
    moments["exp_avg_sq"] = torch._neg_view(-moments["exp_avg_sq"])


def best_models_that_are_a_tensor(payload):
    payload["best"]["models"] = torch.zeros(2)


def epochs_without_end(payload):
    payload["state"]["counts"]["epochs_done"]["pretrain_g"] = 2**63 - 1


def a_folder_with_a_zero_byte(payload):
    payload["folders"]["eval"] += "/a\0b"


def a_list_in_itself(payload):
    payload["args"]["d_filters"].append(payload["args"]["d_filters"])


def another_device(payload):
    payload["args"]["device"] = ["cpu"]


CRAFTED = [
    short_moments,
    moments_of_one_number,
    negative_second_moments,
    a_weight_that_is_no_number,
    tokens_outside_the_vocabulary,
    sizes_of_a_thousand_gigabytes,
    a_measure_without_a_name,
    a_list_in_itself,
    another_device,
    moments_in_another_order,
    a_random_stream_that_reads_past_its_end,
    moments_with_a_negative_bit,
    best_models_that_are_a_tensor,
    epochs_without_end,
    a_folder_with_a_zero_byte,
]


@pytest.mark.parametrize("craft", CRAFTED)
def test_a_crafted_checkpoint_is_refused(own, tmp_path, capsys, craft):
    path = own / "train/last.pt"
    payload = torch.load(path, weights_only=True)
    craft(payload)
    torch.save(payload, path)
    before = snapshot(tmp_path)
    for command in (["--resume"], ["--is_train", "False"]):
        assert call(main.main, *command, "--log_dir", str(path.parent)) == 2
        assert_one_line_error(capsys, "checkpoint")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("value", [torch.zeros(2), [[[]]], "x" * 10**6, {"a": 1}])
@pytest.mark.parametrize("name", ["self", "from_a_later_version"])
def test_a_checkpoint_with_settings_of_another_version_is_refused(own, name, value, capsys):
    path = own / "train/last.pt"
    payload = torch.load(path, weights_only=True)
    payload["args"][name] = value
    torch.save(payload, path)
    assert call(main.main, "--resume", "--log_dir", str(path.parent)) == 2
    assert_one_line_error(capsys, "is not a checkpoint of a run")


def zip_with(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return as_torch_ends(data.getvalue())


def as_torch_ends(data: bytes) -> bytes:
    """A zip without attributes and with the end in 64 bits as well, as torch writes it."""
    for entry in re.finditer(b"PK\1\2", data):
        data = data[: entry.start() + 38] + bytes(4) + data[entry.start() + 42 :]
    *_, number, size, start, _ = struct.unpack("<4s4H2LH", data[-22:])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number, size, start)
    return data[:-22] + record + struct.pack("<4sLQL", b"PK\6\7", 0, len(data) - 22, 1) + data[-22:]


def doubled_tuples(steps: int) -> bytes:
    """A pickle of a dictionary whose key is a pair of pairs of pairs: its hash takes 2^steps steps."""
    return b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * steps + b"K\x01s."


@pytest.mark.parametrize(
    "members",
    [
        {"archive/data.pkl": doubled_tuples(60), "archive/version": b"3\n"},
        {"archive/data.pkl": b"\x80\x02}.", "archive/DATA.PKL": b"\x80\x02}.", "archive/version": b"3\n"},
        {"archive/data.pkl": b"\x80\x02}.", "other/data.pkl": b"\x80\x02}.", "archive/version": b"3\n"},
        {"archive/version": b"3\n"},
        {},
    ],
    ids=["doubled tuples", "two names", "two pickles", "no pickle", "empty"],
)
def test_strange_archives_are_refused(tmp_path, members):
    (tmp_path / "last.pt").write_bytes(zip_with(members))
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


def test_an_archive_of_the_same_layout_is_read(tmp_path):
    """So it is what the archives above hold that is refused."""
    pickled = pickle.dumps({"format": FORMAT}, 2)
    (tmp_path / "last.pt").write_bytes(zip_with({"archive/data.pkl": pickled, "archive/version": b"3\n"}))
    assert load_checkpoint(tmp_path / "last.pt") == {"format": FORMAT}


def two_archives_in_one_file():
    """Zipfile takes the record of the end before its place, torch's reader the one at the place that is written there."""
    pickles = (b"\x80\x02}.", doubled_tuples(60))
    good, bad = (zip_with({"archive/data.pkl": pickled, "archive/version": b"3\n"}) for pickled in pickles)
    return bad[:-42] + good[:-42] + struct.pack("<4sLQL", b"PK\6\7", 0, len(bad) - 98, 1) + good[-22:]


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"format": FORMAT}, 2) + zip_with({"archive/data.pkl": b"\x80\x02}.", "archive/version": b"3\n"}),
        two_archives_in_one_file(),
        zip_with({"archive/data.pkl": b"\x80\x02}."}) + b"more",
    ],
    ids=["an older format before the archive", "two archives", "more after the archive"],
)
def test_files_that_two_readers_see_differently_are_refused(tmp_path, data):
    (tmp_path / "last.pt").write_bytes(data)
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


def test_members_that_unpack_to_more_than_the_file_are_refused(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"x": torch.zeros(2**16)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path.write_bytes(zip_with(members, zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        load_checkpoint(path)


def test_mutated_checkpoints_work_or_are_refused_with_one_line(own, capsys):
    """One part replaced, removed or moved at a time, as stress.py does it ten thousand times."""
    path, rng = own / "train/last.pt", random.Random(7)
    payload = torch.load(path, weights_only=True)
    outcomes = {0: 0, 2: 0}
    for number in range(MUTATIONS):
        changed, what = mutated(payload, rng)
        torch.save(changed, path)
        capsys.readouterr()
        command = ["--is_train", "False", "--final_eval_samples", "20"] if number % 5 else ["--resume", "--total_epochs", "21"]
        status = call(main.main, *command, "--log_dir", str(path.parent))
        text = capsys.readouterr().err
        assert status in outcomes, what
        assert status == 0 or (text.count("\n") == 1 and text.startswith("error: ")), (what, text)
        outcomes[status] += 1
    assert outcomes[2] > MUTATIONS / 2
