"""All that training changes, saved and loaded."""

import copy

import pytest
import torch
from helpers.small_runs import small_run, weights

import train
from data_loader import make_data
from train_state import LATER_STREAMS, PHASES, make_state


def test_a_loaded_state_trains_on_as_the_saved_one():
    state, data, args = small_run()
    for phase, run in zip(PHASES, (train.pretrain_g_epoch, train.pretrain_d_epoch, train.adversarial_epoch), strict=True):
        run(state, data, args)
        state.epochs_done[phase] += 1
    other, _, _ = small_run(seed=2)
    other.load_state_dict(copy.deepcopy(state.state_dict()))  # as from a file: nothing shared
    assert other.g_epochs == 2
    for name in ("generator", "policy", "discriminator"):
        assert torch.equal(weights(getattr(other, name)), weights(getattr(state, name)))
    again = make_data(args, torch.device("cpu"), copy.deepcopy(data.state_dict()))
    one, two = (train.adversarial_epoch(s, d, args) for s, d in ((state, data), (other, again)))
    assert one == two
    assert torch.equal(weights(other.generator), weights(state.generator))


def test_a_checkpoint_without_the_later_streams_still_loads():
    state, _, args = small_run()
    saved = state.state_dict()
    saved["streams"] = {name: value for name, value in saved["streams"].items() if name not in LATER_STREAMS}
    make_state(args, torch.device("cpu")).load_state_dict(saved)
    del saved["streams"]["rollouts"]
    with pytest.raises(KeyError):
        make_state(args, torch.device("cpu")).load_state_dict(saved)
