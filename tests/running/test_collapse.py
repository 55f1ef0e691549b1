"""When the generator is said to collapse."""

import pytest
import torch
from helpers.cli import folders, run
from helpers.small_runs import small_args

from discriminator import Discriminator
from rewards import BASELINES, FORMS, has_vanished
from running.collapse import CollapseWatch


def test_a_rise_of_nll_test_above_its_lowest_value_is_said_once():
    watch = CollapseWatch()
    watch.before({"nll_test": 3.0})
    watch.before({"nll_test": 4.0})  # overfit in pre-training: not the policy's doing
    assert watch.look({"nll_test": 4.4}) is None
    assert watch.look({"nll_test": 3.8}) is None
    assert watch.look({"nll_test": 4.3}) is None
    assert "0.51 above its lowest" in watch.look({"nll_test": 4.31})
    assert watch.look({"nll_test": 9.0}) is None


def test_few_tokens_are_a_collapse_where_real_sequences_use_many():
    assert CollapseWatch().look({"nll_test": 1.0, "distinct_tokens": 10}) is None
    assert CollapseWatch().look({"nll_test": 1.0, "distinct_tokens": 10, "real_distinct_tokens": 30}) is None
    assert "9 different tokens" in CollapseWatch().look({"nll_test": 1.0, "distinct_tokens": 9, "real_distinct_tokens": 30})


def test_a_watch_goes_on_where_it_was_saved():
    watch = CollapseWatch()
    watch.before({"nll_test": 3.0})
    watch.look({"nll_test": 9.0})
    assert CollapseWatch(**watch.state_dict()).look({"nll_test": 99.0}) is None


def test_rewards_that_have_vanished_for_fifty_epochs_in_a_row_are_told_once():
    watch = CollapseWatch()
    assert [watch.rewarded(True) for _ in range(49)] == [None] * 49
    assert watch.rewarded(False) is None  # one epoch with rewards: it counts anew
    watch = CollapseWatch(**watch.state_dict())
    said = [watch.rewarded(True) for _ in range(120)]
    assert [number for number, text in enumerate(said, start=1) if text] == [50]
    assert "D has won" in said[49]


@pytest.mark.parametrize("form", FORMS)
def test_rewards_of_every_form_vanish_where_d_takes_nearly_all_for_generated(form):
    def mean_reward(*probabilities):
        return FORMS[form](torch.tensor(probabilities)).mean().item()

    args = small_args(reward_form=form)
    assert has_vanished(mean_reward(*[1e-6] * 99, 2e-3), args)
    assert not has_vanished(mean_reward(*[1e-6] * 9, 0.5), args)
    assert not has_vanished(mean_reward(1e-6), small_args(reward_form=form, reward="bleu"))


@pytest.mark.parametrize("form", ["--reward_form prob", "--reward_form logit --baseline leave_one_out"])
def test_a_run_whose_discriminator_has_won_says_so_and_a_collapse_what_to_do(form, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Discriminator, "prob_real", lambda self, tokens: torch.full((len(tokens),), 1e-6))
    flags = "--rollout_num 0 --g_lr 2 --pretrain_g_epochs 0 --pretrain_d_epochs 1 --total_epochs 60 --eval_every 10 --grad_clip 1e9"
    monkeypatch.setitem(BASELINES, "leave_one_out", lambda values, counted: values)  # else there is nothing to collapse by
    assert run(*folders(tmp_path), *flags.split(), *form.split()) == 0
    text = capsys.readouterr().out
    assert text.count("D has won") == 1
    assert text.count("the generator collapses") == 1
    advice = text.splitlines()[next(i for i, line in enumerate(text.splitlines()) if "collapses" in line) + 1]
    assert "Ctrl-C" in advice and "best.pt keeps G of epoch" in advice and "--policy_lr" in advice
