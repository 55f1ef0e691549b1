"""The recipe of the default preset at small sizes: its adversarial phase makes G better, that of the original's settings worse."""

import argparse

import torch

import train
from data_loader import make_data
from metrics import mean_nll
from running.flags import preset_settings
from train_state import make_state

SIZES = {
    **dict(vocab_size=40, seq_len=6, g_emb_dim=8, g_hidden_dim=12, oracle_emb_dim=8, oracle_hidden_dim=12),
    **dict(d_emb_dim=8, d_filters=[[1, 8], [2, 16], [3, 16]], eval_samples=1000, evaluate=False, pretrain_g_epochs=200),
}


def changes_of_nll_test(preset, **sizes):
    """NLL_test after every 10 of 40 adversarial epochs, less that of maximum likelihood; its error is far below 0.001."""
    args = argparse.Namespace(**{**preset_settings(preset), **SIZES, **sizes})
    state, data = make_state(args, torch.device("cpu")), make_data(args, torch.device("cpu"))
    for epoch, number in ((train.pretrain_g_epoch, args.pretrain_g_epochs), (train.pretrain_d_epoch, args.pretrain_d_epochs)):
        for _ in range(number):
            epoch(state, data, args)
    start, changes = mean_nll(state.generator, data.held_out)[0], []
    for _ in range(4):
        for _ in range(10):
            train.adversarial_epoch(state, data, args)
            state.epochs_done["adversarial"] += 1
        changes.append(mean_nll(state.generator, data.held_out)[0] - start)
    return changes


def test_the_default_recipe_lowers_nll_test():
    changes = changes_of_nll_test("default", seed=2, pretrain_d_epochs=300)
    assert max(changes) < 0.01
    assert sum(changes) / len(changes) < -0.003


def test_the_original_recipe_raises_it():
    """So the sizes are such that an adversarial phase can do harm."""
    assert min(changes_of_nll_test("original")) > 0.03
