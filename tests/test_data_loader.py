"""Training and held-out sequences of the oracle, batches, and the references of BLEU."""

import torch
from helpers.small_runs import small_run


def test_training_and_held_out_sequences_do_not_mix():
    _, data, _ = small_run(vocab_size=1000, seq_len=8, train_size=200, eval_samples=200, batch_size=32)
    held_out = {tuple(row) for row in data.held_out.tolist()}
    assert len(held_out) == 200
    assert not held_out & {tuple(row) for row in data.train.tolist()}
    _, fresh, _ = small_run(vocab_size=1000, seq_len=8, eval_samples=200, batch_size=200)
    assert not {tuple(row) for row in fresh.held_out.tolist()} & {tuple(row) for row in next(iter(fresh.batches(200))).tolist()}


def test_an_epoch_is_a_fresh_batch_or_a_shuffled_pass():
    _, fresh, _ = small_run()
    first, second = (list(fresh.batches(6)) for _ in range(2))
    assert len(first) == len(second) == 1
    assert not torch.equal(first[0], second[0])
    _, fixed, _ = small_run(train_size=20)
    passes = [torch.cat(list(fixed.batches(6))) for _ in range(2)]
    known = sorted(map(tuple, fixed.train.tolist()))
    for one in passes:
        assert len(one) == 18  # the partial batch of 2 is left out
        rows = sorted(map(tuple, one.tolist()))
        assert all(rows.count(row) <= known.count(row) for row in rows)
    assert not torch.equal(*passes)


def test_the_references_of_bleu_are_training_sequences_not_held_out_ones():
    _, fixed, _ = small_run(train_size=20)
    assert (fixed.training_bleu().score(fixed.train.numpy()) > 1 - 1e-9).all()
    _, fresh, _ = small_run(vocab_size=1000, seq_len=8)
    before = fresh.train_rng.get_state()
    scores = fresh.training_bleu().score(fresh.held_out.numpy())
    assert torch.equal(before, fresh.train_rng.get_state())
    assert (scores < 0.999).all()  # 10,000 references of 8 of 1,000 tokens hold no held-out sequence whole
