"""Plain, slow implementations that the fast ones are held against."""

import itertools

import numpy as np
import torch

from generator import Generator


def tiny_generator(vocab_size: int = 3, hidden_dim: int = 4, seed: int = 0, scale: float = 1.0) -> Generator:
    """A generator with weights N(0, scale²), so that every token and state matters."""
    rng = torch.Generator().manual_seed(seed)
    return Generator(vocab_size, 3, hidden_dim).initialise(rng, scale, scale, scale, scale)


def enumerate_sequences(vocab_size: int, seq_len: int) -> torch.Tensor:
    """All sequences: (V^T, T)."""
    return torch.tensor(list(itertools.product(range(vocab_size), repeat=seq_len)))


def sequence_probability(model: Generator, tokens: torch.Tensor) -> torch.Tensor:
    """Probability of each whole sequence, (B, T) -> (B,), in float64 and with a gradient."""
    return model(tokens).double().gather(2, tokens[:, :, None])[:, :, 0].sum(dim=1).exp()


@torch.no_grad()
def plain_action_values(policy, reward, tokens, num_rollouts, rng):
    """Eq. 4 word for word: for every roll-out and prefix, run the prefix, complete it token by token, score it."""
    batch, seq_len = tokens.shape
    values = torch.zeros(batch, seq_len, device=tokens.device)
    for _ in range(num_rollouts):
        for t in range(1, seq_len):
            state = policy.initial_state(batch)
            last = torch.full_like(tokens[:, 0], policy.start_token)
            completed = tokens.clone()
            for position in range(seq_len):
                state = policy.advance(last, state)
                if position >= t:
                    probabilities = policy.output(state[0]).softmax(dim=1)
                    completed[:, position] = torch.multinomial(probabilities, 1, generator=rng)[:, 0]
                last = completed[:, position]
            values[:, t - 1] += reward(completed) / num_rollouts
    values[:, -1] = reward(tokens)
    return values


class NumpyLSTM:
    """The language model in float64 numpy, from the gate equations of the paper."""

    def __init__(self, model: Generator):
        get = {name: value.double().numpy() for name, value in model.state_dict().items()}
        self.embedding = get["embed.weight"]  # (V, E)
        self.input, self.recurrent = get["lstm.weight_ih_l0"], get["lstm.weight_hh_l0"]  # (4H, E), (4H, H)
        self.bias = get["lstm.bias_ih_l0"] + get["lstm.bias_hh_l0"]
        self.output, self.output_bias = get["output.weight"], get["output.bias"]  # (V, H), (V,)

    def step(self, tokens, hidden, cell):
        """Read one token a row; returns the new state and the log-probabilities of the next token (B, V)."""
        gates = self.embedding[tokens] @ self.input.T + hidden @ self.recurrent.T + self.bias
        i, f, candidate, o = np.split(gates, 4, axis=1)

        def sigmoid(x):
            return 1 / (1 + np.exp(-x))

        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(candidate)
        hidden = sigmoid(o) * np.tanh(cell)
        logits = hidden @ self.output.T + self.output_bias
        logits -= logits.max(axis=1, keepdims=True)
        return hidden, cell, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def log_probabilities(self, tokens):
        """log p(y_t | y_1..t-1): (B, T) -> (B, T)."""
        hidden = cell = np.zeros((len(tokens), self.recurrent.shape[1]))
        last, rows, result = np.zeros(len(tokens), dtype=int), np.arange(len(tokens)), []
        for column in tokens.T:
            hidden, cell, log_p = self.step(last, hidden, cell)
            result.append(log_p[rows, column])
            last = column
        return np.stack(result, axis=1)

    def entropy(self, num, seq_len, rng):
        """Entropy per token from sampled prefixes and exact conditional entropies, and its standard error."""
        hidden = cell = np.zeros((num, self.recurrent.shape[1]))
        last, total = np.zeros(num, dtype=int), np.zeros(num)
        for _ in range(seq_len):
            hidden, cell, log_p = self.step(last, hidden, cell)
            p = np.exp(log_p)
            total -= (p * log_p).sum(axis=1)
            last = np.minimum((p.cumsum(axis=1) <= rng.random((num, 1))).sum(axis=1), p.shape[1] - 1)
        per_token = total / seq_len
        return per_token.mean(), per_token.std(ddof=1) / np.sqrt(num)


def token_scores(model: Generator, tokens: torch.Tensor) -> torch.Tensor:
    """∇_θ log G(y_t|y_1..t−1) of every token by its own backward pass: (B, T) -> (B, T, P) float64, P trained weights."""
    weights = [p for p in model.parameters() if p.requires_grad]
    log_p = model(tokens).gather(2, tokens[:, :, None])[:, :, 0]
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(each, weights, retain_graph=True)]) for each in log_p.flatten()]
    return torch.stack(rows).double().view(*tokens.shape, -1)
