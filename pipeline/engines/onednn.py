"""oneDNN in place of MKL for a model's large matrix products on a CPU."""

from __future__ import annotations

import torch
from torch import nn

_LARGE = 1 << 18
"""Weights from which on oneDNN is faster; below, what a call costs outweighs it."""


class OneDnnLinear(nn.Linear):
    """A linear layer whose product is oneDNN's. It has no backward pass."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Product of ``input`` [..., in] with the weights, plus the bias: [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")


def use_onednn(model: nn.Module) -> None:
    """Compute large float32 linear layers on the CPU with oneDNN.

    PyTorch hands float32 products to MKL, which is at its best for thousands of rows and, on processors that are not
    Intel's, leaves AVX-512 unused. On an AMD processor oneDNN was twice as fast, with AVX2 alone 1.4 times for the few
    rows of a decoding step. It is a part of PyTorch; its operator here is the one that ``torch.compile`` uses.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # private to PyTorch, whose later versions may lack it
        return
    for layer in model.modules():
        if type(layer) is nn.Linear and _gains(layer.weight):
            layer.__class__ = OneDnnLinear


def _gains(weights: torch.Tensor) -> bool:
    return weights.device.type == "cpu" and weights.dtype == torch.float32 and weights.numel() >= _LARGE
