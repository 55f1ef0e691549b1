"""All that training changes, saved and loaded."""

import copy

import torch
from helpers.cli import same
from helpers.small_runs import small_run, weights

import train
from data_loader import make_data
from train_state import PHASES


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


def test_each_phase_of_g_has_an_adam_of_its_own():
    """With one for both, the moments of the pre-training would steer the first policy updates."""
    state, data, args = small_run()
    train.pretrain_g_epoch(state, data, args)
    assert not state.optimizers["policy"].state
    before = copy.deepcopy(state.optimizers["mle"].state_dict())
    train.adversarial_epoch(state, data, args)
    assert state.optimizers["policy"].state
    assert same(state.optimizers["mle"].state_dict()["state"], before["state"])


def test_each_purpose_draws_from_a_random_stream_of_its_own():
    """With one for both, the number of negatives would decide which sequences the policy gradient is taken on."""
    state, data, args = small_run()
    assert len({bytes(rng.get_state().tolist()) for rng in state.streams.values()}) == len(state.streams)

    def drawn_from(step):
        before = {name: rng.get_state() for name, rng in state.streams.items()}
        step(state, data, args)
        return {name for name, rng in state.streams.items() if not torch.equal(rng.get_state(), before[name])}

    assert drawn_from(train.g_step) == {"policy samples", "rollouts"}
    assert drawn_from(lambda *given: train.d_steps(*given, 2)) == {"negatives", "shuffle", "dropout"}
    assert drawn_from(train.pretrain_g_epoch) == set()
