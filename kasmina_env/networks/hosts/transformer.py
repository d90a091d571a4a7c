"""A small GPT (Radford et al. 2019): it predicts the next token at every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import Module

from kasmina_env.networks import layers
from kasmina_env.networks.blueprints.attention import CausalAttention
from kasmina_env.networks.hosts.base import MOST_LAYERS, Slot, register_host
from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.config import check_sizes

LONGEST_CONTEXT = 2**13  # attention takes memory with its square


def weight_of(table: Module) -> Tensor:
    """Vectors of an embedding."""
    return cast(Tensor, table.weight)


class Embed(Module):
    """Sum of a vector for each token and one for its position: tokens ``[B, T]`` to features ``[B, T, C]``."""

    def __init__(self, nn: Layers, num_classes: int, context: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(num_classes, width)
        self.position = nn.Embedding(context, width)
        for table in (self.token, self.position):
            torch.nn.init.normal_(weight_of(table), std=layers.Embedding.STANDARD_DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.token(x)
        positions = weight_of(self.position)  # a slice of the table, as positions need no index
        length, context = features.shape[-2], positions.shape[-2]
        if length > context:
            raise ValueError(f"`x` must be at most {context} tokens long, got {length}. Cut it, or widen `context`.")
        return features + positions[..., :length, :].unsqueeze(-3)


class Block(Module):
    """Attention, if there are heads, and a perceptron, each on normalised features and added to them."""

    def __init__(self, nn: Layers, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention = None
        if num_heads:
            self.attention = nn.Sequential(nn.LayerNorm(width), CausalAttention(nn, width, num_heads))
        hidden = 4 * width
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.attention is not None:
            x = x + self.attention(x)
        out: Tensor = x + self.mlp(x)
        return out


class Head(Module):
    """Features ``[B, T, C]`` to logits ``[B, T, num_classes]``, with the weights of the token table."""

    def __init__(self, nn: Layers, width: int, num_classes: int, token: Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, num_classes, bias=False)
        self.logits.weight = weight_of(token)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.norm(x))
        return logits


@register_host("transformer")
@dataclass(frozen=True)
class TransformerHost:
    """Token and position embeddings, blocks of causal attention and perceptron, and a head tied to the embedding.

    Attributes:
        num_classes: Number of different tokens.
        context: Tokens of a sample.
        width: Features of a token.
        num_layers: Number of blocks.
        num_segments: Number of slots: one behind each `num_layers / num_segments` blocks.
        num_heads: Heads of each block's attention; with 0 the host sees no other token until a seed looks at them.
    """

    num_classes: int = 97
    context: int = 32
    width: int = 8
    num_layers: int = 2
    num_segments: int = 2
    num_heads: int = 2

    def __post_init__(self) -> None:
        check_sizes({"num_classes": self.num_classes, "width": self.width})
        check_sizes({"context": self.context}, LONGEST_CONTEXT)
        check_sizes({"num_layers": self.num_layers, "num_segments": self.num_segments}, MOST_LAYERS)
        if self.num_heads < 0:
            raise ValueError(f"`num_heads` must be at least 0, got {self.num_heads}. Use 0 for no attention.")
        for name, divisor in (("num_layers", "num_segments"), ("width", "num_heads")):
            if getattr(self, name) % (getattr(self, divisor) or 1):
                raise ValueError(
                    f"`{name}` must be divisible by `{divisor}` = {getattr(self, divisor)}, got "
                    f"{getattr(self, name)}. Change one of them."
                )

    @property
    def topology(self) -> Topology:
        return "tokens"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.context,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        length = self.num_layers // self.num_segments
        return tuple(Slot(f"layer{i}", self.width) for i in range(length - 1, self.num_layers, length))

    def build(self, nn: Layers) -> list[Module]:
        length = self.num_layers // self.num_segments
        embed = Embed(nn, self.num_classes, self.context, self.width)
        segments = []
        for i in range(self.num_segments):
            blocks = [Block(nn, self.width, self.num_heads) for _ in range(length)]
            segments.append(nn.Sequential(*([] if i else [embed]), *blocks))
        return [*segments, Head(nn, self.width, self.num_classes, embed.token)]
