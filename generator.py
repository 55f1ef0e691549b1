"""LSTM generator: the policy G_θ that picks one token at a time (Yu et al. 2017, Eqs. 9-10).

The same class with other weights is the roll-out policy G_β and the oracle G_oracle. Training reads whole sequences through
`nn.LSTM` (teacher forcing), or through fast/lstm.py, which is faster on a CPU. `advance` reads one token at a time, on the same
parameters: the plain way to draw a sequence. `sample` draws the same sequences faster (fast/decoder.py).

Shapes: B sequences, T tokens each, V tokens in the vocabulary, E embedding, H hidden units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fast.cross_entropy import token_nll, weighted_nll
from fast.cuda_graphs import Runner
from fast.decoder import Decoder, sample_tokens
from fast.lstm import hidden_states
from fast.native import gpu_kernels_for, kernel_for
from support import world
from support.device import to_device

State = tuple[Tensor, Tensor]  # LSTM state (h, c), each (B, H)
# Standard deviations of the generator's weights: "glorot" as in the TensorFlow code of `original`, "normal" as in the authors'.
GENERATOR_INIT = {
    "glorot": dict(embedding_std=0.1, output_std=1.0, output_bias_std=0.0, lstm_std=None),
    "normal": dict(embedding_std=0.1, output_std=0.1, output_bias_std=0.1, lstm_std=0.1),
}


def counted_tokens(tokens: Tensor, end_token: int | None) -> Tensor:
    """Which tokens are not behind a first end token, all where there is no such token: (B, T) -> bool (B, T)."""
    if end_token is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    ended = (tokens == end_token).long()
    return ended.cumsum(dim=1) - ended == 0


class Generator(nn.Module):
    """LSTM language model over V tokens. Step 1 reads `start_token`, which is a real token as well (as in the authors' code).

    With an end token, sequences are of variable length: the end token is absorbing, so that after the first one only end tokens
    follow, with probability 1, and shorter sequences are padded with it.

    Args:
        vocab_size: V.
        emb_dim: E.
        hidden_dim: H.
        start_token: the token read before the first one.
        end_token: the token that ends a sequence, or None for sequences of T tokens each.
    """

    def __init__(self, vocab_size: int, emb_dim: int, hidden_dim: int, start_token: int = 0, end_token: int | None = None):
        super().__init__()
        self.start_token, self.end_token = start_token, end_token
        self.embed = nn.Embedding(vocab_size, emb_dim)
        self.lstm = nn.LSTM(emb_dim, hidden_dim, batch_first=True)
        self.output = nn.Linear(hidden_dim, vocab_size)
        # The paper's cell has one bias a gate. nn.LSTM has two: training both would double the bias's learning rate.
        self.lstm.bias_hh_l0.requires_grad_(False)

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return self.output.out_features

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.output.weight.device

    @torch.no_grad()
    def initialise(
        self, rng: torch.Generator, embedding_std: float, output_std: float, output_bias_std: float, lstm_std: float | None
    ) -> Generator:
        """Draw all weights anew, on the CPU, so that a seed gives the same weights on every device.

        Args:
            rng: a CPU random stream.
            embedding_std: standard deviation of N(0, σ²) for the embedding; 0 gives zeros.
            output_std: the same for the output weights.
            output_bias_std: the same for the output bias.
            lstm_std: the same for the LSTM's weights and biases; None means Glorot uniform weights, zero biases and 1 added to
                the forget gate's bias (TensorFlow's BasicLSTMCell).

        Returns:
            Itself.
        """
        hidden_dim, emb_dim = self.lstm.hidden_size, self.lstm.input_size
        self.embed.weight.normal_(0, embedding_std, generator=rng)
        for weight in (self.lstm.weight_ih_l0, self.lstm.weight_hh_l0):  # (4H, E), (4H, H); gates i, f, g, o
            if lstm_std is None:
                # TensorFlow has both in one (E + H, 4H) matrix, so Glorot's limit counts both fan-ins.
                limit = math.sqrt(6 / (emb_dim + hidden_dim + 4 * hidden_dim))
                weight.uniform_(-limit, limit, generator=rng)
            else:
                weight.normal_(0, lstm_std, generator=rng)
        bias = self.lstm.bias_ih_l0.zero_()
        if lstm_std is None:
            bias[hidden_dim : 2 * hidden_dim] = 1.0
        else:
            bias.normal_(0, lstm_std, generator=rng)
        self.lstm.bias_hh_l0.zero_()
        self.output.weight.normal_(0, output_std, generator=rng)
        self.output.bias.normal_(0, output_bias_std, generator=rng)
        return self

    def hidden(self, tokens: Tensor, inputs: Tensor | None = None, masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Hidden state that predicts each token: (B, T) -> (B, T, H). By teacher forcing, unless the inputs (B, T) are given.

        The masks of dropout multiply the embeddings, (B, T, E), and the hidden states, (B, T, H).
        """
        gpu = gpu_kernels_for(self.embed.weight) if torch.is_grad_enabled() else None
        inputs = self.inputs(tokens) if inputs is None else inputs
        embedded = self.embed(inputs) if gpu is None else gpu.embed(inputs, self.embed.weight)  # (B, T, E)
        if masks is None:
            return self._states(embedded)
        return self._states(embedded * masks[0]) * masks[1]

    def _states(self, embedded: Tensor) -> Tensor:
        """Hidden state after each step: (B, T, E) -> (B, T, H)."""
        kernel = kernel_for(embedded) if torch.is_grad_enabled() else None  # without gradients torch's needs less memory
        if kernel is None:
            return self.lstm(embedded)[0]
        lstm = self.lstm
        return hidden_states(kernel, embedded, (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0))

    def dropout_masks(self, batch: int, seq_len: int, rates: tuple[float, float], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Masks of plain dropout, a fresh one at each step, on the embeddings and on the LSTM's output.

        The hidden state that the LSTM reads at its next step is not dropped (Zaremba et al. 2014).

        Args:
            batch: B.
            seq_len: T.
            rates: the shares of the embeddings and of the outputs that are dropped, below 1.
            rng: a CPU random stream, the same on every device.

        Returns:
            (B, T, E) and (B, T, H), 0 or 1 / (1 − rate).
        """
        sizes = (self.lstm.input_size, self.lstm.hidden_size)
        masks = [
            (torch.rand(batch, seq_len, size, generator=rng) >= rate) / (1 - rate) for size, rate in zip(sizes, rates, strict=True)
        ]
        return to_device(masks[0], self.device), to_device(masks[1], self.device)

    def inputs(self, tokens: Tensor) -> Tensor:
        """What each step reads by teacher forcing, the start token and y_1..T−1: (B, T) -> (B, T)."""
        start = torch.full_like(tokens[:, :1], self.start_token)  # (B, 1)
        return torch.cat([start, tokens[:, :-1]], dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probability of every token of the vocabulary at every step: (B, T) -> (B, T, V), in nats."""
        log_p = self.output(self.hidden(tokens)).log_softmax(dim=-1)
        if self.end_token is None:
            return log_p
        certain = torch.full_like(log_p[:1, :1], -math.inf)  # (1, 1, V)
        certain[..., self.end_token] = 0
        return torch.where(self.counted(tokens)[:, :, None], log_p, certain)

    def counted(self, tokens: Tensor) -> Tensor:
        """Which tokens are drawn rather than certain, those up to and including the first end token: (B, T) -> bool (B, T)."""
        return counted_tokens(tokens, self.end_token)

    @torch.no_grad()
    def nll(self, tokens: Tensor) -> Tensor:
        """−log G(y_t | y_1..t−1) of each given token, without gradients, for evaluation: (B, T) -> (B, T), in nats."""
        hidden = self.hidden(tokens).flatten(0, 1)  # (B·T, H)
        nll = token_nll(hidden, self.output.weight, self.output.bias, tokens.flatten()).view(tokens.shape)
        return nll if self.end_token is None else nll * self.counted(tokens)

    def weighted_nll(
        self, tokens: Tensor, weights: Tensor, inputs: Tensor | None = None, masks: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Σ weights · −log G(y_t | inputs_1..t), a scalar to train on.

        Args:
            tokens: y, (B, T).
            weights: (B, T); no gradient is taken for them. Those of tokens behind the first end token have no effect.
            inputs: what each step reads, (B, T); by default the start token and y_1..T−1.
            masks: of dropout (`dropout_masks`).
        """
        if self.end_token is not None:
            weights = weights * self.counted(tokens)
        hidden = self.hidden(tokens, inputs, masks).flatten(0, 1)  # (B·T, H)
        return weighted_nll(hidden, self.output.weight, self.output.bias, tokens.flatten(), weights.flatten())

    def initial_state(self, batch_size: int) -> State:
        """The zero LSTM state before the start token: two (B, H) tensors."""
        zeros = self.output.weight.new_zeros(batch_size, self.lstm.hidden_size)
        return zeros, zeros

    def advance(self, tokens: Tensor, state: State) -> State:
        """Read one token a row: (B,) and the state before it -> the state after it, whose h predicts the next token."""
        lstm = self.lstm
        return torch.lstm_cell(self.embed(tokens), state, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)

    @torch.no_grad()
    def mixed_inputs(self, tokens: Tensor, omega: float, rng: torch.Generator) -> Tensor:
        """Inputs of scheduled sampling (Bengio et al. 2015): each token is kept with probability omega, or else drawn anew.

        Args:
            tokens: real sequences, (B, T).
            omega: the share that is kept, from 0 to 1.
            rng: a CPU random stream.

        Returns:
            (B, T): the start token, then y_t or, given the inputs up to it, the model's own draw in its place.
        """
        batch, seq_len = tokens.shape
        keep, uniforms = (
            to_device(torch.rand(seq_len - 1, batch, dtype=torch.float64, generator=rng), tokens.device) for _ in range(2)
        )
        inputs = torch.full_like(tokens, self.start_token)
        decoder = Decoder(self, batch * seq_len)
        states = decoder.zero_states(batch)
        for t in range(seq_len - 1):
            decoder.advance(inputs[:, t], states)
            inputs[:, t + 1] = torch.where(keep[t] < omega, tokens[:, t], decoder.draw(states, uniforms[t]))
        return inputs

    @torch.no_grad()
    def sample(
        self, num: int, seq_len: int, rng: torch.Generator, temperature: float = 1.0, prefix: Tensor | None = None
    ) -> Tensor:
        """Sequences drawn from the model: int64 (num, seq_len).

        Args:
            num: how many sequences.
            seq_len: T.
            rng: a CPU random stream: the same seed gives the same uniform numbers on every device.
            temperature: divides the logits; 1 samples the model itself.
            prefix: tokens that every sequence begins with, (P,) with P ≤ T.

        Raises:
            ValueError: the temperature is not a positive number.
        """
        return self.sample_from(to_device(sampling_numbers(num, seq_len, rng), self.device), temperature, prefix)

    @torch.no_grad()
    def sample_from(self, uniforms: Tensor, temperature: float = 1.0, prefix: Tensor | None = None) -> Tensor:
        """The sequences that `sample` draws with the given `sampling_numbers` (T, M): int64 (M, T)."""
        if prefix is None:
            prefix = torch.empty(0, dtype=torch.int64)
        return sample_tokens(self, uniforms, temperature, prefix)


def sample_with_runner(
    model: Generator, num: int, seq_len: int, rng: torch.Generator, runner: Runner, name: str, batches: int = 1
) -> Tensor:
    """What `batches` calls of `model.sample(num, seq_len, rng)` give, drawn together by a runner: (batches · num, seq_len).

    `name` identifies the CUDA graph.
    """
    numbers = torch.cat([sampling_numbers(num, seq_len, rng) for _ in range(batches)], dim=1)
    own = numbers[:, world.rows(batches * num)]
    return world.gather(runner.run(name, model.sample_from, to_device(own, model.device)), batches * num)


def sampling_numbers(num: int, seq_len: int, rng: torch.Generator) -> Tensor:
    """The uniform numbers that sequences are drawn with, from a CPU random stream: float64 (seq_len, num) on the CPU."""
    return torch.rand(seq_len, num, dtype=torch.float64, generator=rng)
