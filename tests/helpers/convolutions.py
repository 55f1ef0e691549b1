"""The largest responses of filters, plainly, and the gradients of any way to compute them."""

import torch


def exact(embedded, filters):
    """ReLU of the largest responses with their biases, with loops over windows: (B, T, E) -> (B, F)."""
    columns = []
    for width, weights, biases in filters:
        windows = embedded.shape[1] - width + 1
        # a filter's weights are (E, w), a window's inputs (w, E)
        parts = [embedded[:, p : p + width].transpose(1, 2).flatten(1) @ weights.t() + biases for p in range(windows)]
        columns.append(torch.stack(parts).amax(dim=0))
    return torch.cat(columns, dim=1).relu()


def values_and_gradients(function, embedded, filters, gradient, dtype):
    embedded = embedded.to(dtype).requires_grad_()
    kinds = [(width, weights.to(dtype).requires_grad_(), biases.to(dtype).requires_grad_()) for width, weights, biases in filters]
    features = function(embedded, kinds)
    inputs = [embedded, *(tensor for _, *tensors in kinds for tensor in tensors)]
    return [features.detach(), *torch.autograd.grad(features, inputs, gradient.to(dtype))]
