"""The ranks of a run: shares of rows, and what they exchange."""

import json
import signal
import time

import pytest
import torch
from helpers.cli import ROOT
from helpers.ranks import ranks

from support import world
from support.torchrun import VARIABLES, is_first, local_rank, number_of_ranks
from support.world import World

ON_EACH_RANK = f"""
import json, sys, torch
sys.path.insert(0, {str(ROOT)!r})
from support import world
with world.one_report(), world.join(torch.device("cpu"), 3):
    rank = world._world.rank
"""


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("num", [0, 1, 2, 7, 8, 9, 64])
def test_shares_follow_each_other_and_differ_by_one_row_at_most(num, size, monkeypatch):
    shares = []
    for rank in range(size):
        monkeypatch.setattr(world, "_world", World(rank, size))
        shares.append(range(num)[world.rows(num)])
    assert [row for share in shares for row in share] == list(range(num))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_exchanges_nothing():
    tensor = torch.arange(3.0)
    assert world.gather(tensor, 3) is tensor
    world.add_up([tensor])
    world.must_be_alike([tensor], "never said")
    assert tensor.tolist() == [0, 1, 2]
    assert world.together(True) and not world.together(False)


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": ""}, {"RANK": "1", "WORLD_SIZE": "2"}])
def test_without_all_variables_of_torchrun_a_process_is_alone(variables, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (number_of_ranks(), is_first(), local_rank()) == (1, True, 0)


def results(found):
    assert [status for status, _, _ in found] == [0] * len(found), found
    return [json.loads(text) for _, text, _ in found]


def test_all_ranks_get_the_same_rows_and_sums(tmp_path):
    program = """
    whole = torch.arange(14).view(7, 2) * 10 + 3
    rows = world.gather(whole[world.rows(7)], 7)
    columns = world.gather(whole.t()[:, world.rows(7)].double(), 7, dim=1)
    few = world.gather(whole[:2][world.rows(2)], 2)
    one, two = torch.full((3,), float(rank)), torch.tensor(0.5)
    world.add_up([one, two])
    print(json.dumps([torch.equal(rows, whole), torch.equal(columns, whole.t().double()), torch.equal(few, whole[:2]),
                      one.tolist(), two.item(), world.together(True), world.together(rank != 2)]))
"""
    with ranks(3, "-c", ON_EACH_RANK + program, cwd=tmp_path) as started:
        assert results(started.end()) == [[True, True, True, [3.0] * 3, 1.5, True, False]] * 3


def test_ranks_whose_weights_differ_end_with_one_line(tmp_path):
    program = """
    world.must_be_alike([torch.ones(5), torch.tensor([float("nan")])], "NaN")
    world.must_be_alike([torch.ones(5), torch.full((3,), 1 + 1e-6 * (rank == 1))], "the weights differ")
"""
    with ranks(2, "-c", ON_EACH_RANK + program, cwd=tmp_path) as started:
        found = started.end()
    assert sorted(status for status, _, _ in found) == [1, 2]  # a traceback, as nothing stands around these ranks
    assert sum("UserError: the weights differ" in error for _, _, error in found) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_lost_ends_the_others_within_the_timeout(number, tmp_path):
    program = f"""
    import os
    world.together(True)
    if rank == 1:
        os.kill(os.getpid(), {int(number)})
    world.together(True)
"""
    begun = time.monotonic()
    with ranks(3, "-c", ON_EACH_RANK + program, cwd=tmp_path) as started:
        found = {rank: started.processes[rank].communicate(timeout=30) for rank in (0, 2)}
        assert time.monotonic() - begun < 20
    errors = [error for _, error in found.values() if error]
    assert len(errors) == 1
    assert "another process of this run has ended, or did not answer within --dist_timeout 3 s" in errors[0]
