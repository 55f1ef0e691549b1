"""What trains in Triton: the values and gradients of torch's path. On a CPU by Triton's interpreter, at tiny sizes."""

import pytest
import torch
from helpers.convolutions import exact, values_and_gradients
from helpers.small_runs import SETTINGS, small_args, train_all_phases, weights

from discriminator import Discriminator
from fast import native
from fast.cuda_graphs import GraphRunner
from support.errors import UserError
from train_state import make_state
from updates import discriminator_update, mle_update

pytest.importorskip("triton", reason="needs Triton")

from helpers.triton_interpreter import interpreter_works

from fast import triton_kernels
from fast.triton_embedding import MOST_ROWS
from fast.triton_split import split

if not torch.cuda.is_available() and not interpreter_works():
    pytest.skip("needs a version of Triton whose interpreter knows this NumPy", allow_module_level=True)

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
LOOK_UPS = (triton_kernels.embed, torch.nn.functional.embedding)
needs_cuda = pytest.mark.skipif(not ON_GPU, reason="needs CUDA")


def filters_of(kinds, emb_dim, rng):
    return [(w, torch.randn(f, emb_dim * w, generator=rng).to(DEVICE), torch.randn(f, generator=rng).to(DEVICE)) for w, f in kinds]


SIZES = [
    (1, 1, 1, [(1, 1)]),
    (3, 5, 7, [(1, 2), (5, 3), (1, 1)]),  # as wide as the sequence, and a width twice
    (9, 20, 5, [(3, 70), (13, 3), (20, 65), (2, 1)]),  # tiles of 32, 8 and 1 windows a sequence, more filters than a tile has
    (2, 150, 40, [(2, 3), (70, 2), (150, 1)]),  # several tiles for a sequence, inputs that are no multiple of a step
    (3, 16, 65, [(2, 3)]),  # two steps for a token's inputs
]


@pytest.mark.parametrize(("batch", "length", "emb_dim", "kinds"), SIZES)
def test_convolutions_and_gradients_are_those_of_float64(batch, length, emb_dim, kinds):
    rng = torch.Generator().manual_seed(0)
    embedded, filters = torch.randn(batch, length, emb_dim, generator=rng).to(DEVICE), filters_of(kinds, emb_dim, rng)
    gradient = torch.randn(sum(number for _, number in kinds), batch, generator=rng).to(DEVICE).t()  # not contiguous
    found = values_and_gradients(triton_kernels.largest_responses, embedded, filters, gradient, torch.float32)
    expected = values_and_gradients(exact, embedded, filters, gradient, torch.float64)
    for tensor, other in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.double(), other, rtol=1e-5, atol=1e-5 * (1 + other.abs().max().item()))


def test_a_number_is_the_sum_of_two_of_tf32():
    numbers = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(DEVICE) * 10.0 ** torch.arange(-5, 5).repeat(500).to(
        DEVICE
    )
    high, low = split(numbers)
    for part in (high, low):
        assert not (part.view(torch.int32) & 0x1FFF).any()  # 13 bits that TF32 does not keep
    assert (low.abs() <= 2.0**-11 * high.abs()).all()  # rounded to the nearest
    assert ((numbers.double() - high.double() - low.double()).abs() <= 2.0**-22 * numbers.double().abs()).all()


def test_tf32_is_near():
    rng = torch.Generator().manual_seed(0)
    embedded, filters = torch.randn(3, 5, 65, generator=rng).to(DEVICE), filters_of([(2, 3)], 65, rng)
    features = triton_kernels.largest_responses(embedded, filters, "tf32")
    torch.testing.assert_close(features, exact(embedded, filters), rtol=1e-3, atol=5e-2)


@pytest.mark.parametrize("length", [6, 70])
@pytest.mark.parametrize("where", ["embedded", "taps", "biases"])
def test_not_a_number_is_not_lost(where, length):
    rng = torch.Generator().manual_seed(0)
    embedded, filters = torch.randn(3, length, 4, generator=rng).to(DEVICE), filters_of([(2, 5)], 4, rng)
    bits = {"embedded": embedded, "taps": filters[0][1], "biases": filters[0][2]}[where].view(torch.int32)
    bits.view(-1)[1] = 0x7FFFFFFF  # NaN as GPUs write it
    features = triton_kernels.largest_responses(embedded, filters)
    assert torch.equal(features.isnan(), exact(embedded, filters).isnan()) and features.isnan().any()
    gradient = torch.ones_like(features)
    *_, biases = values_and_gradients(triton_kernels.largest_responses, embedded, filters, gradient, torch.float32)
    assert torch.equal(biases, (features.isnan() | (features > 0)).sum(dim=0).float())


def test_tensors_may_lie_in_memory_in_any_order():
    rng = torch.Generator().manual_seed(0)
    embedded, filters = torch.randn(4, 6, 3, generator=rng).to(DEVICE), filters_of([(2, 5)], 3, rng)
    turned = embedded.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(triton_kernels.largest_responses(turned, filters), triton_kernels.largest_responses(embedded, filters))
    weight = torch.randn(7, 3, generator=rng).to(DEVICE).requires_grad_()
    tokens = torch.tensor([[1, 5], [5, 2]]).to(DEVICE)
    found = [torch.autograd.grad(look_up(tokens.t(), weight).sum(), weight)[0] for look_up in LOOK_UPS]  # an expanded gradient
    assert torch.equal(*found)
    layer = triton_kernels.TritonLayer(weight, torch.zeros(7).to(DEVICE), 1.0, torch.arange(7).to(DEVICE))
    rows, uniforms = torch.randn(4, 6, generator=rng).to(DEVICE), torch.rand(3, 4, dtype=torch.float64, generator=rng).to(DEVICE)
    expected = layer.draw(rows, uniforms.t().contiguous())
    assert torch.equal(layer.draw(rows, uniforms.t()), expected)
    assert torch.equal(layer.draw(torch.cat([rows, rows], dim=1)[:, :6], uniforms.t()), expected)


def test_misuse_is_refused():
    rng = torch.Generator().manual_seed(0)
    embedded, filters = torch.randn(2, 4, 3, generator=rng).to(DEVICE), filters_of([(2, 5)], 3, rng)
    taps = filters[0][1].requires_grad_()
    (gradient,) = torch.autograd.grad(triton_kernels.largest_responses(embedded, filters).square().sum(), taps, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()
    with pytest.raises(RuntimeError, match="filters of width 2 for sequences of 1 tokens"):
        triton_kernels.largest_responses(embedded[:, :1], filters)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_discriminators_gradients_are_those_of_torch(repeated, use):
    """Repeated tokens give equal responses: torch divides their gradient, and the embedding's is the same."""
    tokens = (torch.randint(20, (16, 8), generator=torch.Generator().manual_seed(0)) % (2 if repeated else 20)).to(DEVICE)
    gradients = []
    for module in (None, triton_kernels):
        use(module)
        model = Discriminator(20, 6, [(1, 3), (2, 4), (2, 5), (4, 6)], keep_prob=1.0).initialise(torch.Generator().manual_seed(2))
        model.to(DEVICE).train()
        torch.nn.functional.cross_entropy(model(tokens), tokens[:, 0] % 2).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("vocab_size", "emb_dim", "shape"), [(3, 5, (7,)), (50, 70, (2, 35)), (1, 1, (2, 3)), (9, 2, (MOST_ROWS + 1,))]
)
def test_an_embeddings_gradient_is_that_of_torch(vocab_size, emb_dim, shape):
    rng = torch.Generator().manual_seed(0)
    weight, tokens = torch.randn(vocab_size, emb_dim, generator=rng).to(DEVICE), torch.randint(vocab_size, shape, generator=rng)
    gradient, tokens, found = torch.randn(*shape, emb_dim, generator=rng).to(DEVICE), tokens.to(DEVICE), []
    for function in LOOK_UPS:
        own = weight.clone().requires_grad_()
        rows = function(tokens, own)
        found.append([rows.detach(), *torch.autograd.grad(rows, own, gradient)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_updates_follow_those_of_torch(use, monkeypatch):
    losses, calls = [], []
    for name in ("embed", "largest_responses"):
        function = getattr(triton_kernels, name)
        monkeypatch.setattr(triton_kernels, name, lambda *given, name=name, run=function: calls.append(name) or run(*given))
    for module in (None, triton_kernels):
        use(module)
        args = small_args(d_l2=0.2, d_keep_prob=1.0)
        state, rng, values = make_state(args, DEVICE), torch.Generator().manual_seed(4), []
        state.discriminator.train()
        for _ in range(4):
            tokens = torch.randint(args.vocab_size, (6, 5), generator=rng).to(DEVICE)
            values += [discriminator_update(state, args, tokens, tokens[:, 0] % 2)[0], mle_update(state, args, tokens)[0]]
        losses.append(torch.stack(values))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    assert calls == ["embed", "largest_responses", "embed"] * 4


def test_scores_and_bf16_stay_with_torch(use, monkeypatch):
    use(triton_kernels)
    monkeypatch.setattr(triton_kernels, "largest_responses", None)
    model = Discriminator(9, 4, [(2, 3)]).initialise(torch.Generator().manual_seed(2)).to(DEVICE)
    tokens = torch.zeros(2, 5, dtype=torch.int64).to(DEVICE)
    assert model.prob_real(tokens).isfinite().all()
    with torch.autocast(DEVICE.type, torch.bfloat16):
        model(tokens).sum().backward()


@pytest.mark.parametrize("name", ["largest_responses", "lstm_step", "embed", "TritonLayer"])
def test_what_computes_wrongly_is_refused(name, monkeypatch):
    right = getattr(triton_kernels, name)

    def wrong(*given):
        result = right(*given)
        if name == "lstm_step":
            given[2].add_(0.01)
        if name != "TritonLayer":
            return None if result is None else result + 0.01
        result.bias += torch.arange(len(result.bias)).to(DEVICE) % 2
        return result

    monkeypatch.setattr(triton_kernels, name, wrong)
    monkeypatch.setattr(triton_kernels, "CHECKED_ROWS", 10)
    checks = {
        "largest_responses": lambda d: triton_kernels.check_convolutions(wrong, 16, d),
        "lstm_step": triton_kernels.check_step,
    }
    checks |= {"embed": triton_kernels.check_embedding, "TritonLayer": triton_kernels.check_draws}
    with pytest.raises(RuntimeError, match="wrong"):
        checks[name](DEVICE)


@pytest.mark.parametrize("reason", ["is no GPU", "no Triton", "fails"])
def test_triton_is_refused_where_it_can_not_compute(reason, monkeypatch):
    def fails(device):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(triton_kernels, "check", fails)
    if reason == "no Triton":
        monkeypatch.setitem(__import__("sys").modules, "fast.triton_kernels", None)
    device = torch.device("meta" if reason == "is no GPU" else "cuda")
    native.load_for_gpu.cache_clear()
    try:
        with pytest.raises(UserError, match="--native_draws True: ") as refused:
            native.set_up("True", device)
        assert "\n" not in str(refused.value)
    finally:
        native.load_for_gpu.cache_clear()


def test_a_gpu_without_tf32_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(RuntimeError, match="Old GPU has no tensor cores"):
        triton_kernels.check(torch.device("cuda"))


@needs_cuda
@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_on_cuda_graphs_of_triton_train_like_torch(changes):
    results = []
    for setting in ("False", "True"):
        native.set_up(setting, DEVICE)
        results.append(train_all_phases(DEVICE, cuda_graphs=setting == "True", **changes))
    assert isinstance(results[1].runner, GraphRunner) and results[1].runner.working
    for model in ("generator", "policy", "discriminator"):
        one, other = (weights(getattr(state, model)) for state in results)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
