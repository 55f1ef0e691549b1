"""Recorded functions: the same training, whatever is recorded, and direct calls where recording fails."""

import copy

import pytest
import torch
from helpers.small_runs import SETTINGS, StateTape, small_args, train_all_phases, trained, weights
from helpers.tape import TapeRecorder
from torch.utils._python_dispatch import TorchDispatchMode

import train
import updates
from data_loader import make_data
from fast.cuda_graphs import PLAIN_RUNNER, WARM_UP, GraphRunner, Runner, make_runner
from support.device import to_device
from train_state import make_state

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_recorded_functions_train_the_same(changes, monkeypatch):
    plain, expected = trained(None, monkeypatch, **changes)
    recorded, numbers = trained(StateTape, monkeypatch, **changes)
    recorded_names = {"maximum likelihood", "discriminator", "policy gradient", "samples of G"}
    recorded_names |= {"roll-outs"} if changes.get("rollout_num") != 0 else set()
    recorded_names |= {"scores"} if changes.get("reward") != "bleu" else set()
    recorded_names |= {"samples of the oracle"} if not changes.get("train_size") else set()
    replayed = {name for (name, *_), recording in recorded.runner.recordings.items() if recording.replay is not None}
    assert recorded.runner.working
    assert replayed == recorded_names
    for model in ("generator", "policy", "discriminator"):
        assert torch.equal(weights(getattr(recorded, model)), weights(getattr(plain, model))), model
    assert numbers == expected


def test_the_gpus_code_trains_like_the_cpus_up_to_rounding(monkeypatch):
    """Without dropout, whose masks a GPU draws itself."""
    gpu, _ = trained(None, monkeypatch, d_keep_prob=1.0)
    monkeypatch.undo()
    cpu = train_all_phases("cpu", d_keep_prob=1.0)
    for model in ("generator", "discriminator"):
        torch.testing.assert_close(weights(getattr(gpu, model)), weights(getattr(cpu, model)), atol=1e-4, rtol=1e-3)


def test_dropout_masks_of_a_gpu_follow_from_the_saved_stream(monkeypatch):
    """Otherwise a resumed run would draw other masks."""
    monkeypatch.setattr("support.threads.CPU_TYPES", ())
    args = small_args(train_size=20)
    data = make_data(args, torch.device("cpu"))
    state = make_state(args, torch.device("cpu"))
    train.d_steps(state, data, args, 1)
    resumed = make_state(args, torch.device("cpu"))
    resumed.load_state_dict(copy.deepcopy(state.state_dict()))
    for one in (state, resumed):
        train.d_steps(one, data, args, 1)
    assert torch.equal(weights(state.discriminator), weights(resumed.discriminator))
    other = make_state(args, torch.device("cpu"))
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    other.streams["dropout"].manual_seed(99)
    for one in (state, other):
        train.d_steps(one, data, args, 1)
    assert not torch.equal(weights(state.discriminator), weights(other.discriminator))


def test_a_function_is_recorded_at_its_fourth_call_and_each_result_is_a_copy():
    total = torch.zeros(3)
    calls = []

    def function(x):
        calls.append(None)
        total.add_(x)
        return total * 2, x + 1

    recorder = TapeRecorder([total])
    runner = GraphRunner(recorder)
    results = [runner.run("sum", function, torch.full((3,), float(i))) for i in range(1, 8)]
    assert len(calls) == WARM_UP + 1
    assert recorder.played == 7 - WARM_UP
    assert total.tolist() == [28.0] * 3
    assert [doubled[0].item() for doubled, _ in results] == [2, 6, 12, 20, 30, 42, 56]  # not all the last one
    assert [plus[0].item() for _, plus in results] == [2, 3, 4, 5, 6, 7, 8]


def test_each_name_and_shape_has_its_own_recording():
    runner = GraphRunner(TapeRecorder())
    for i in range(6):
        x = torch.full((2,), float(i))
        assert torch.equal(runner.run("double", lambda x: x * 2, x), x * 2)
        assert torch.equal(runner.run("negate", lambda x: -x, x), -x)
        assert torch.equal(runner.run("double", lambda x: x * 2, x[:1]), x[:1] * 2)
    assert len(runner.recordings) == 3


def test_where_recording_fails_training_goes_on_with_one_warning(capsys):
    total = torch.zeros(1)

    def function(x):
        total.add_(x)
        return x * total.item()  # looks at a value

    recorder = TapeRecorder([total])

    class Failing(TapeRecorder):
        def record(self, function, inputs):
            try:
                return recorder.record(function, inputs)
            except RuntimeError as error:
                total.sub_(inputs[0])  # a real recording does nothing
                raise RuntimeError(f"{error}\nand more lines") from error

    runner = GraphRunner(Failing())
    results = [runner.run("bad", function, torch.ones(1)).item() for _ in range(6)]
    assert results == [1, 2, 3, 4, 5, 6]
    assert [runner.run("other", lambda x: x + 1, torch.ones(1)).item() for _ in range(6)] == [2] * 6
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no CUDA graphs" in error and "bad" in error and "reads a value" in error
    assert recorder.played == 0


def test_errors_of_a_function_are_not_taken_for_failed_recordings():
    runner = GraphRunner(TapeRecorder())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="own"):
            runner.run("bad", lambda x: (_ for _ in ()).throw(RuntimeError("own")), torch.ones(1))


def test_loading_a_state_discards_recordings(monkeypatch):
    """They would go on with the optimisers' old tensors."""
    state, _ = trained(StateTape, monkeypatch)
    state.load_state_dict(copy.deepcopy(state.state_dict()))
    assert not state.runner.recordings


def test_only_cuda_records():
    assert make_runner(torch.device("cpu"), True, []) is PLAIN_RUNNER
    assert type(make_runner(torch.device("cuda"), False, [])) is Runner


def test_a_move_to_the_cpu_copies_nothing_on_the_cpu():
    x = torch.ones(3)
    assert to_device(x, torch.device("cpu")) is x


@needs_cuda
@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_cuda_graphs_train_like_direct_calls(changes, capsys):
    results = [train_all_phases("cuda", cuda_graphs=graphs, **changes) for graphs in (False, True)]
    assert isinstance(results[1].runner, GraphRunner) and results[1].runner.working, capsys.readouterr().err
    assert all(recording.replay is not None for recording in results[1].runner.recordings.values())
    for model in ("generator", "policy", "discriminator"):
        one, other = (weights(getattr(state, model)) for state in results)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@needs_cuda
def test_on_cuda_training_goes_on_after_a_failed_recording(capsys):
    device = torch.device("cuda")
    args = small_args(train_size=20)
    state, data = make_state(args, device), make_data(args, device)
    for _ in range(WARM_UP + 1):
        state.runner.run("looks at a value", lambda x: x * x.sum().item(), torch.ones(3, device=device))
    assert not state.runner.working
    assert "looks at a value" in capsys.readouterr().err
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.rand(3, device=device)
    for epoch in (train.pretrain_g_epoch, train.pretrain_d_epoch, train.adversarial_epoch):
        epoch(state, data, args)


@needs_cuda
def test_cpu_and_cuda_agree_on_losses_over_20_updates(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")  # as main.py does
    losses = {}
    for name in ("cpu", "cuda"):
        device = torch.device(name)
        args = small_args(vocab_size=500, seq_len=20, batch_size=32, train_size=32 * 20, d_keep_prob=1.0, d_l2=0.2, shuffle=False)
        state, data = make_state(args, device), make_data(args, device)
        values = []
        for tokens in data.batches(args.batch_size):
            values.append(updates.mle_update(state, args, tokens)[0].item())
            labels = torch.arange(len(tokens), device=device) % 2
            values.append(updates.discriminator_update(state, args, tokens, labels)[0].item())
            values.append(updates.policy_update(state, args, tokens, torch.full(tokens.shape, 0.5, device=device))[0].item())
        assert len(values) == 60
        losses[name] = values
    assert losses["cuda"] == pytest.approx(losses["cpu"], abs=1e-4)


class CountsReads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, which makes a CPU wait for its GPU."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("epoch", "little", "much", "own"),
    [
        (train.pretrain_g_epoch, dict(train_size=6), dict(train_size=48), 0),
        (train.pretrain_g_epoch, dict(train_size=6, scheduled_sampling=0.5), dict(train_size=48, scheduled_sampling=0.5), 0),
        (train.pretrain_d_epoch, dict(train_size=6, d_epochs=1), dict(train_size=48, d_epochs=4), 0),
        (train.adversarial_epoch, dict(d_steps=1, g_steps=1), dict(d_steps=1, g_steps=5), 0),
        (train.adversarial_epoch, dict(d_steps=1), dict(d_steps=5), 4),  # each d-step's seed for the masks is read on the CPU
    ],
)
def test_an_epoch_reads_no_value_from_an_update(epoch, little, much, own, monkeypatch):
    monkeypatch.setattr("support.threads.CPU_TYPES", ())
    reads = []
    for changes in (little, much):
        args = small_args(**changes)
        state, data = make_state(args, torch.device("cpu")), make_data(args, torch.device("cpu"))
        epoch(state, data, args)
        with CountsReads() as counter:
            epoch(state, data, args)
        reads.append(counter.reads)
    assert reads[1] - reads[0] == own
