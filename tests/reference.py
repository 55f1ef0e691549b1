"""Plain, slow implementations that the fast ones are held against."""

import itertools

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
    values = torch.zeros(batch, seq_len)
    for _ in range(num_rollouts):
        for t in range(1, seq_len):
            state = policy.initial_state(batch)
            last = torch.full_like(tokens[:, 0], policy.start_token)
            completed = tokens.clone()
            for position in range(seq_len):
                state = policy.step(last, state)
                if position >= t:
                    probabilities = policy.output(state[0]).softmax(dim=1)
                    completed[:, position] = torch.multinomial(probabilities, 1, generator=rng)[:, 0]
                last = completed[:, position]
            values[:, t - 1] += reward(completed) / num_rollouts
    values[:, -1] = reward(tokens)
    return values
