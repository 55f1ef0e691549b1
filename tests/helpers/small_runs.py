"""Trainings that take milliseconds, run without the command line."""

import argparse

import torch

import train
from data_loader import make_data
from fast.cuda_graphs import GraphRunner
from helpers.tape import TapeRecorder
from running.flags import preset_settings
from train_state import make_state


def small_args(**changes):
    """Settings of a run that takes milliseconds."""
    settings = preset_settings("original") | {
        **{"vocab_size": 12, "seq_len": 5, "batch_size": 6, "d_filters": [[2, 4], [3, 4]], "g_emb_dim": 4, "g_hidden_dim": 5},
        **{"d_emb_dim": 4, "rollout_num": 3, "d_steps": 2, "d_epochs": 2, "eval_samples": 20, "final_eval_samples": 30},
    }
    return argparse.Namespace(**{**settings, **changes})


def small_run(**changes):
    """State, data and settings of a small run."""
    args = small_args(**changes)
    return make_state(args, torch.device("cpu")), make_data(args, torch.device("cpu")), args


def small_state(**changes):
    """State and settings of a small run, where no data are needed: the oracle's entropy takes a tenth of a second."""
    args = small_args(**changes)
    return make_state(args, torch.device("cpu")), args


def weights(model):
    """All weights as one vector."""
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def gradient(model):
    """All gradients as one vector, of the weights that are trained."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


EPOCHS = 6  # more than the warm-up


def train_all_phases(device, **changes):
    """State after some epochs of each phase of a small run on a device."""
    args = small_args(**changes)
    state, data = make_state(args, torch.device(device)), make_data(args, torch.device(device))
    data.runner = state.runner
    for epoch in (train.pretrain_g_epoch, train.pretrain_d_epoch, train.adversarial_epoch):
        for _ in range(EPOCHS):
            epoch(state, data, args)
    return state


def optimiser_tensors(state):
    return [t for o in state.optimizers.values() for values in o.state.values() for t in values.values()]


def trained(recorder_class, monkeypatch, device="cpu", **changes):
    """State and numbers of a small training that goes a GPU's way, on the CPU or on a device that is given."""
    monkeypatch.setattr("support.threads.CPU_TYPES", ())
    args = small_args(**changes)
    state, data = make_state(args, torch.device(device)), make_data(args, torch.device(device))
    if recorder_class is not None:
        state.runner = GraphRunner(recorder_class(state))
    data.runner = state.runner
    numbers = []
    for _ in range(EPOCHS):
        numbers.append(train.pretrain_g_epoch(state, data, args))
        state.epochs_done["pretrain_g"] += 1
    for epoch in (train.pretrain_d_epoch, train.adversarial_epoch):
        numbers += [epoch(state, data, args) for _ in range(EPOCHS)]
    return state, numbers


class StateTape(TapeRecorder):
    """Knows what the functions of a training change: found when it records, as optimisers make their state late."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def record(self, function, inputs):
        models = (self.state.generator, self.state.policy, self.state.discriminator)
        self.changed = [p for model in models for p in model.parameters()] + optimiser_tensors(self.state)
        rng = self.state.discriminator.dropout_rng
        before = rng.get_state()
        result = super().record(function, inputs)
        rng.set_state(before)
        return result


SETTINGS = {
    "fresh batches": {},
    "fixed set": dict(train_size=20, shuffle=False, policy_loss="sum", d_l2=0.2, g_init="normal", d_keep_prob=0.5),
    "scheduled sampling": dict(scheduled_sampling=0.3, train_size=20),
    "lagged roll-out policy": dict(rollout_update_rate=0.5, g_steps=2),
    "bleu": dict(reward="bleu"),
    "bf16": dict(d_precision="bf16"),
    "dropout and weight decay": dict(g_dropout=0.2, g_emb_dropout=0.1, g_weight_decay=0.01),
    "gentle": dict(
        **dict(rollout_num=0, baseline="leave_one_out", reward_form="logit", kl_weight=0.1, mle_share=0.5, g_steps=2),
        **dict(policy_lr=1e-3, policy_batch=9),
    ),
    "shuffled": dict(reward="shuffled", baseline="state", reward_form="log"),
    "default": dict(reward_form="logit", baseline="state", rollout_num=2, policy_batch=9, policy_lr=1e-3, kl_weight=0.2),
}
