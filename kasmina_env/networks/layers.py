"""Layers that hold N networks side by side, under the names and signatures of ``torch.nn``.

N networks are one wide network: images travel as ``[B, N*C, H, W]``, in N groups of channels that never mix, vectors as
``[N, B, C]`` and tokens as ``[N, B, T, C]``. A grouped convolution, a GroupNorm with N times the groups and a batched
matmul are then *exactly* N independent networks, in one kernel each. Vectors and tokens have the networks in front, so
that some of the networks are one piece of memory, which a batched matmul takes as it is.

Hosts and blueprints are written once, against an argument ``nn``. Given this module they build the wide network; given
``torch.nn``, the ordinary network that a user takes home, with the same parameter names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Never, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import (
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Flatten,
    Identity,
    LeakyReLU,
    MaxPool2d,
    Module,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)

from kasmina_env.settings.registry import did_you_mean

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "Layers",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "MissingLayerError",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "Topology",
    "bounds_of",
    "split_logits",
    "widen",
]

Layer = Callable[..., Module]
Topology = Literal["image", "vector", "tokens"]


class Layers(Protocol):
    """Namespace that hosts and blueprints build from: this module (wide) or ``torch.nn`` (ordinary)."""

    @property
    def Conv2d(self) -> Layer: ...
    @property
    def Linear(self) -> Layer: ...
    @property
    def Embedding(self) -> Layer: ...
    @property
    def GroupNorm(self) -> Layer: ...
    @property
    def BatchNorm2d(self) -> Layer: ...
    @property
    def LayerNorm(self) -> Layer: ...
    @property
    def ReLU(self) -> Layer: ...
    @property
    def GELU(self) -> Layer: ...
    @property
    def Tanh(self) -> Layer: ...
    @property
    def Sigmoid(self) -> Layer: ...
    @property
    def SiLU(self) -> Layer: ...
    @property
    def LeakyReLU(self) -> Layer: ...
    @property
    def Softplus(self) -> Layer: ...
    @property
    def Identity(self) -> Layer: ...
    @property
    def MaxPool2d(self) -> Layer: ...
    @property
    def AvgPool2d(self) -> Layer: ...
    @property
    def AdaptiveAvgPool2d(self) -> Layer: ...
    @property
    def Flatten(self) -> Layer: ...
    @property
    def Sequential(self) -> Layer: ...


class MissingLayerError(AttributeError, ValueError):
    """A layer of ``torch.nn`` that this namespace does not have."""


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)
_NO_DROPOUT = (
    "it draws from a random stream that all networks share. Use the settings `augment`, `label_noise` or `pixel_noise`"
)


def __getattr__(name: str) -> Never:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in {dropout.__name__ for dropout in _DROPOUTS}:
        raise MissingLayerError(f"`nn` has no {name}: {_NO_DROPOUT}.")
    known = sorted(key for key in vars(Layers) if key[0].isupper())
    raise MissingLayerError(
        f"`nn` has no layer {name!r} that runs networks side by side.{did_you_mean(name, known)} Compose it from "
        f"{', '.join(known)} in a Module of your own, or add it to kasmina_env/networks/layers.py."
    )


def bounds_of(module: Module) -> dict[str, tuple[float, float]]:
    """Bounds of the uniform initialisation of all parameters, by name, equal ones for a constant.

    Raises:
        ValueError: If a part of the module is not built from this namespace, and so cannot hold N networks.
    """
    bounds: dict[str, tuple[float, float]] = {}
    for prefix, layer in module.named_modules():
        kind, place = type(layer).__name__, prefix or "its top"
        if isinstance(layer, _DROPOUTS):
            raise ValueError(f"`build` must use no {kind}, got one at {place}: {_NO_DROPOUT}.")
        declared = layer.bounds if isinstance(layer, _Wide) else {}
        for name, _ in layer.named_parameters(recurse=False):
            if name not in declared:
                raise ValueError(
                    f"`build` must take layers with parameters from its argument `nn`, got {kind} with {name!r} of its "
                    f"own at {place}. Write nn.Linear and the like, with the `nn` that is given."
                )
        for name, _ in layer.named_buffers(recurse=False):
            raise ValueError(
                f"`build` must use no layers with buffers, got {kind} with {name!r} at {place}. Compute it in forward."
            )
        bounds |= {f"{prefix}.{name}".lstrip("."): limits for name, limits in declared.items()}
    return bounds


def widen(x: Tensor) -> Tensor:
    """Lay samples side by side: vectors ``[B, N, C]`` to ``[N, B, C]``, tokens ``[B, N, T]`` to ``[N, B, T]``.

    Images, ``[B, N, C, H, W]`` to ``[B, N*C, H, W]``, are put into channels_last memory here, and nowhere later.
    """
    if x.ndim == 5:
        # Always a copy, unlike `contiguous`: with N = C = 1 the strides would not say channels_last, and one network
        # would run through other kernels, which break the ties of a max-pool in another way.
        last = x.permute(0, 3, 4, 1, 2).flatten(3).clone(memory_format=torch.contiguous_format)
        return last.permute(0, 3, 1, 2)
    # once here, not in every layer
    return x.transpose(0, 1).contiguous()


def split_logits(logits: Tensor, num_networks: int) -> Tensor:
    """View of a wide host's logits with the networks next to the classes, ``[B, N, K]``; for tokens ``[B, T, N, K]``.

    Args:
        logits: ``[B, N*K]`` for images, ``[N, B, K]`` for vectors, ``[N, B, T, K]`` for tokens.
        num_networks: N.
    """
    return logits.unflatten(-1, (num_networks, -1)) if logits.ndim == 2 else logits.movedim(0, -2)


class _Wide(Module):
    """Parameters ``[N, ...]`` and, for each, the bounds of its uniform initialisation (equal bounds: a constant)."""

    bounds: dict[str, tuple[float, float]]
    weight: Parameter

    def _declare(self, name: str, shape: tuple[int, ...], low: float, high: float) -> None:
        setattr(self, name, Parameter(torch.empty(1, *shape)))
        self.bounds[name] = (low, high)


class Linear(_Wide):
    """N linear maps as one batched matmul, ``[N, ..., in_features]`` to ``[N, ..., out_features]``.

    Flattened images ``[B, N*in_features]`` become ``[B, N*out_features]``.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.bounds = {}
        bound = 1 / math.sqrt(in_features)
        self._declare("weight", (out_features, in_features), -bound, bound)
        self.bias: Parameter | None = None
        if bias:
            self._declare("bias", (out_features,), -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return _linear_channels(x, self.weight, self.bias)
        return _linear(x.flatten(1, -2), self.weight, self.bias).view(*x.shape[:-1], -1)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """N linear maps: ``[N, M, in]`` with weights ``[N, out, in]`` and biases ``[N, out]`` to ``[N, M, out]``."""
    turned = weight.transpose(1, 2)
    return torch.bmm(x, turned) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, turned)


def _linear_channels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """N linear maps on channels: ``[..., N*in]`` with weights and biases as above to ``[..., N*out]``."""
    num_networks, out_features, in_features = weight.shape
    out = _linear(x.reshape(-1, num_networks, in_features).transpose(0, 1), weight, bias)
    return out.transpose(0, 1).reshape(*x.shape[:-1], num_networks * out_features)


class Embedding(_Wide):
    """N tables of vectors, integers ``[N, ...]`` to ``[N, ..., embedding_dim]``.

    They start small, as in GPT-2 (Radford et al. 2019), and not standard normal as in `torch.nn.Embedding`: a head that
    shares the table then starts with nearly equal logits.
    """

    STANDARD_DEVIATION = 0.02

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.bounds = {}
        bound = self.STANDARD_DEVIATION * math.sqrt(3)
        self._declare("weight", (num_embeddings, embedding_dim), -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        num_networks, num_embeddings, _ = self.weight.shape
        tables = torch.arange(num_networks, device=x.device) * num_embeddings
        return F.embedding(x + tables.view(-1, *[1] * (x.ndim - 1)), self.weight.flatten(0, 1))


class Conv2d(_Wide):
    """N convolutions as one, ``[B, N*in_channels, H, W]`` to ``[B, N*out_channels, H', W']``.

    It is a grouped convolution, or a batched matmul where that is faster: on a GPU, and on the CPU for kernels of one
    pixel over few samples, where calling oneDNN takes longer than the arithmetic (`examples/lowerings.py`).
    """

    # Most samples, of all networks together and per input channel, for which a matmul is faster.
    FEW_SAMPLES = 256

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.bounds = {}
        self.stride, self.padding, self.groups = stride, padding, groups
        fan_in = in_channels // groups * kernel_size**2
        bound = 1 / math.sqrt(fan_in)
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self._declare("weight", shape, -bound, bound)
        self.bias: Parameter | None = None
        if bias:
            self._declare("bias", (out_channels,), -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        is_matmul = self.groups == 1 and (x.is_cuda or self._has_few_samples(x))
        return self.as_matmul(x) if is_matmul else self.as_groups(x)

    def _has_few_samples(self, x: Tensor) -> bool:
        num_networks, _, in_channels, size, _ = self.weight.shape
        num_samples = num_networks * x.shape[0] * x.shape[2] * x.shape[3]
        return size == self.stride == 1 and not self.padding and num_samples <= self.FEW_SAMPLES * in_channels

    def as_groups(self, x: Tensor) -> Tensor:
        """Forward as a grouped convolution."""
        groups = self.weight.shape[0] * self.groups
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv2d(x, self.weight.flatten(0, 1), bias, self.stride, self.padding, groups=groups)

    def as_matmul(self, x: Tensor) -> Tensor:
        """Forward as a batched matmul over windows.

        cuDNN takes 10 to 100 times as long for many groups of few channels in float32. On the CPU a convolution is
        faster, except for few samples.
        """
        size, edge = self.weight.shape[-1], self.padding
        last = x.permute(0, 2, 3, 1)
        if edge:
            last = F.pad(last, (0, 0, edge, edge, edge, edge))
        if size > 1 or self.stride > 1:
            last = last.unfold(1, size, self.stride).unfold(2, size, self.stride).flatten(3)  # [B, H', W', N*C*k*k]
        return _linear_channels(last, self.weight.flatten(2), self.bias).permute(0, 3, 1, 2)


class GroupNorm(_Wide):
    """N group normalisations (Wu & He 2018) as one with N times the groups, on images and vectors."""

    bias: Parameter

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.bounds = {}
        self.num_groups, self.eps = num_groups, eps
        self._declare("weight", (num_channels,), 1.0, 1.0)
        self._declare("bias", (num_channels,), 0.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:  # vectors
            out: Tensor = self.forward(x.transpose(0, 1).flatten(1)).unflatten(1, (len(x), -1)).transpose(0, 1)
            return out
        groups = self.weight.shape[0] * self.num_groups
        weight, bias = self.weight.flatten(), self.bias.flatten()
        if torch.is_grad_enabled() and not x.requires_grad:
            # PyTorch 2.13 on the CPU crashes (segmentation fault) in the fused backward when x is channels_last and
            # only weight and bias want gradients, which is a seed in TRAINING that starts with a norm.
            shape = (1, -1, *[1] * (x.ndim - 2))
            return torch.addcmul(bias.view(shape), F.group_norm(x, groups, eps=self.eps), weight.view(shape))
        return F.group_norm(x, groups, weight, bias, self.eps)


class BatchNorm2d(_Wide):
    """N batch normalisations (Ioffe & Szegedy 2015) as one over all channels, on ``[B, N*C, H, W]``.

    It normalises with the statistics of the minibatch where gradients are enabled, which is in training, and with its
    running statistics elsewhere. Those are declared as parameters that no gradient reaches: they are initialised,
    copied, saved, reset and exported with all other numbers of their network, and no optimiser changes them.
    """

    bias: Parameter
    running_mean: Parameter
    running_var: Parameter

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.bounds = {}
        self.eps, self.momentum = eps, momentum
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self._declare(name, (num_features,), value, value)

    def forward(self, x: Tensor) -> Tensor:
        running, is_training = (self.running_mean, self.running_var), torch.is_grad_enabled()
        mean, variance = (p.detach().flatten().clone() for p in running)
        weight, bias = self.weight.flatten(), self.bias.flatten()
        out = F.batch_norm(x, mean, variance, weight, bias, is_training, self.momentum, self.eps)
        if is_training:
            for p, updated in zip(running, (mean, variance), strict=True):
                # `data`, because other weights in the same memory are kept for the backward, and these are not
                p.data.copy_(updated.view_as(p))
        return out


class LayerNorm(_Wide):
    """N layer normalisations (Ba et al. 2016) over the channels of each network, on ``[N, ..., C]``."""

    bias: Parameter

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.bounds = {}
        self.eps = eps
        self._declare("weight", (normalized_shape,), 1.0, 1.0)
        self._declare("bias", (normalized_shape,), 0.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        num_networks, channels = self.weight.shape
        shape = (num_networks, *[1] * (x.ndim - 2), channels)
        normed = F.layer_norm(x, (channels,), eps=self.eps)
        return normed * self.weight.view(shape) + self.bias.view(shape)
