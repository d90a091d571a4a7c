"""Attention: over the channels of an image, and over earlier tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from kasmina_env.networks.blueprints.base import register_blueprint
from kasmina_env.networks.layers import Layers


class SqueezeExcite(Module):
    """Change each channel in proportion to a bounded function of all channels' means (Hu et al. 2018)."""

    def __init__(self, nn: Layers, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.tanh(self.expand(torch.relu(self.reduce(pooled))))


@register_blueprint("attention", topologies=("image",), initial={"expand.bias": 0.0})
def attention(nn: Layers, channels: int) -> Module:
    """Squeeze-and-excite: rescales channels by the content of the whole image."""
    return SqueezeExcite(nn, channels)


class CausalAttention(Module):
    """Attention of each token to itself and earlier ones (Vaswani et al. 2017).

    Args:
        nn: Namespace of layers.
        channels: C of one network, divisible by `num_heads`.
        num_heads: H, heads of one network.
        prefers_recent: Whether to lower the logits of earlier tokens in proportion to their distance, each head with
            its own slope (ALiBi, Press et al. 2022). Tokens then differ by place without positions in the features.
    """

    def __init__(self, nn: Layers, channels: int, num_heads: int, prefers_recent: bool = False) -> None:
        super().__init__()
        self.head_size = channels // num_heads
        # steeper than the paper's 2**(-8 * i / H), which are for contexts of a thousand tokens
        self.slopes = [2.0 ** (1 - 2 * i) for i in range(num_heads)] if prefers_recent else []
        self.gather = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.gather(x).unflatten(-1, (-1, 3, self.head_size)).flatten(0, -5)  # [B or N*B, T, H, 3, D]
        query, key, value = heads.transpose(1, 2).unbind(-2)  # each [B or N*B, H, T, D]
        bias = self._bias(query) if self.slopes else None
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None)
        out: Tensor = self.out(gathered.transpose(1, 2).reshape(x.shape))
        return out

    def _bias(self, query: Tensor) -> Tensor:
        """Summand of the logits, ``[H, T, T]``."""
        position = torch.arange(query.shape[2], device=query.device, dtype=query.dtype)
        distance = position[:, None] - position
        return torch.stack([torch.where(distance < 0, -torch.inf, -slope * distance) for slope in self.slopes])


@register_blueprint("attention", topologies=("tokens",), initial={"out.weight": 0.0, "out.bias": 0.0})
def causal_attention(nn: Layers, channels: int) -> Module:
    """Causal attention that prefers recent tokens, with up to four heads of at least four channels."""
    num_heads = max(h for h in (1, 2, 4) if channels % h == 0 and (h == 1 or channels // h >= 4))
    return CausalAttention(nn, channels, num_heads, prefers_recent=True)
