"""Wide layers are N ordinary layers side by side: same values, same gradients, same starting range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kasmina_env.networks import layers
from kasmina_env.networks.layers import split_logits, widen
from kasmina_env.population.stack import make_template
from tests.contract import normal

NUM_NETWORKS, BATCH = 3, 4
IMAGE, VECTOR, TOKENS = (4, 6, 6), (4,), (5, 4)

# Name of the layer, its arguments, and the shape of one sample with four channels.
CASES = [
    ("Linear", (4, 6), {}, VECTOR),
    ("Linear", (4, 6), {"bias": False}, TOKENS),
    ("Conv2d", (4, 6, 3), {"padding": 1}, IMAGE),
    ("Conv2d", (4, 6, 3), {"stride": 2, "bias": False}, IMAGE),
    ("Conv2d", (4, 4, 3), {"padding": 1, "groups": 4}, IMAGE),
    ("Conv2d", (4, 6, 1), {"groups": 2}, IMAGE),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("GroupNorm", (1, 4), {"eps": 0.1}, VECTOR),
    ("LayerNorm", (4,), {}, VECTOR),
    ("LayerNorm", (4,), {"eps": 0.1}, TOKENS),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    ("ReLU", (), {}, VECTOR),
    ("GELU", (), {}, TOKENS),
    ("Tanh", (), {}, IMAGE),
    ("Sigmoid", (), {}, TOKENS),
    ("SiLU", (), {}, VECTOR),
    ("LeakyReLU", (0.2,), {}, IMAGE),
    ("Softplus", (), {"beta": 2.0}, VECTOR),
    ("Identity", (), {}, IMAGE),
]
every_layer = pytest.mark.parametrize("name, args, settings, shape", CASES)


def apart(wide: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Wide features to `[N, B, ...]`, channels first for images."""
    return wide.unflatten(1, (NUM_NETWORKS, -1)).movedim(1, 0) if shape == IMAGE else wide


def run_plain(layer: nn.Module, values: list[torch.Tensor], x: torch.Tensor):
    """Output of an ordinary layer with the given weights, and the gradients of its square's sum."""
    for p, value in zip(layer.parameters(), values, strict=True):
        p.data = value
    x = x.clone().requires_grad_()
    out = layer(x)
    return out.detach(), torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])


@every_layer
def test_value_and_gradients_are_those_of_ordinary_layers(name, args, settings, shape):
    template = make_template(lambda namespace: getattr(namespace, name)(*args, **settings))
    x = normal(BATCH, NUM_NETWORKS, *shape, dtype=torch.float64)
    weights = [normal(NUM_NETWORKS, *s, seed=i, dtype=torch.float64) for i, s in enumerate(template.shapes)]
    inputs = [widen(x).requires_grad_(), *(w.requires_grad_() for w in weights)]
    out = template.call(weights, inputs[0])
    gradients = torch.autograd.grad(out.square().sum(), inputs)
    for i in range(NUM_NETWORKS):
        plain, plain_gradients = run_plain(
            getattr(nn, name)(*args, **settings), [w.detach()[i] for w in weights], x[:, i]
        )
        found = [apart(out, shape)[i], apart(gradients[0], shape)[i], *(g[i] for g in gradients[1:])]
        torch.testing.assert_close(found, [plain, *plain_gradients], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "kernel, settings", [(1, {}), (3, {"padding": 1}), (3, {"stride": 2, "bias": False}), (1, {"stride": 2})]
)
def test_both_ways_to_convolve_are_the_same(kernel, settings):
    layer = layers.Conv2d(4, 6, kernel, **settings)
    for i, (name, p) in enumerate(list(layer.named_parameters())):
        setattr(layer, name, nn.Parameter(normal(NUM_NETWORKS, *p.shape[1:], seed=i, dtype=torch.float64)))
    x = widen(normal(BATCH, NUM_NETWORKS, *IMAGE, dtype=torch.float64)).requires_grad_()
    found = []
    for out in (layer.as_groups(x), layer.as_matmul(x)):
        found.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)


def test_few_samples_of_1x1_kernels_are_a_matmul_on_the_cpu(monkeypatch):
    taken = []
    for name in ("as_groups", "as_matmul"):
        monkeypatch.setattr(layers.Conv2d, name, lambda self, x, name=name: taken.append(name))
    for kernel, side in ((1, 1), (1, 2), (1, 8), (3, 1)):
        layers.Conv2d(8, 8, kernel, padding=kernel // 2)(torch.empty(33, 8, side, side))
    assert taken == ["as_matmul", "as_matmul", "as_groups", "as_groups"]


@every_layer
def test_names_shapes_and_starting_values_are_those_of_ordinary_layers(name, args, settings, shape):
    template = make_template(lambda namespace: getattr(namespace, name)(*args, **settings))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [dict(getattr(nn, name)(*args, **settings).named_parameters()) for _ in range(50)]
    shapes = {key: tuple(p.shape) for key, p in drawn[0].items()}
    assert dict(zip(template.names, template.shapes, strict=True)) == shapes
    assert all(p.is_meta for p in template.module.parameters())
    ends = (template.unflatten(torch.from_numpy(side)[None].float()) for side in (template.low, template.high))
    for key, low, high in zip(shapes, *ends, strict=True):
        values = torch.stack([plain[key].detach() for plain in drawn])
        torch.testing.assert_close(values.amin(), low.min(), rtol=0.1, atol=0)
        torch.testing.assert_close(values.amax(), high.max(), rtol=0.1, atol=0)


@pytest.mark.parametrize("name, args", [("GroupNorm", (2, 4)), ("LayerNorm", (4,))])
def test_a_norm_on_features_without_gradient_learns_all_the_same(name, args):
    """The fused backward of GroupNorm crashes there on channels_last images, so it is done another way."""
    shape = IMAGE if name == "GroupNorm" else VECTOR
    template = make_template(lambda namespace: getattr(namespace, name)(*args))
    weights = [normal(NUM_NETWORKS, 4, seed=i, dtype=torch.float64).requires_grad_() for i in range(2)]
    x = widen(normal(BATCH, NUM_NETWORKS, *shape, dtype=torch.float64))
    out = template.call(weights, x)
    gradients = torch.autograd.grad(out.square().sum(), weights)
    leaf = x.clone().requires_grad_()
    fused = template.call(weights, leaf)
    _, *fused_gradients = torch.autograd.grad(fused.square().sum(), [leaf, *weights])
    torch.testing.assert_close([out, *gradients], [fused, *fused_gradients], rtol=0, atol=1e-10)


def test_the_layers_are_those_of_their_protocol():
    declared = {name for name in vars(layers.Layers) if name[0].isupper()}
    assert declared <= set(layers.__all__)
    assert all(hasattr(nn, name) for name in declared)


# ── layout ──────────────────────────────────────────────────────────────────────────────────────


@given(sizes=st.tuples(*[st.integers(1, 5)] * 4), num_networks=st.integers(1, 5))
def test_widened_images_are_channels_last_and_split_into_their_networks(sizes, num_networks):
    """The layout is made here."""
    batch, *image = sizes
    x = normal(batch, num_networks, *image)
    wide = widen(x)
    assert wide.shape == (batch, num_networks * image[0], *image[1:])
    assert wide.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(wide.unflatten(1, (num_networks, -1)), x)


@given(shape=st.sampled_from([(4, 3, 6), (4, 3, 5, 6)]))
def test_other_features_have_their_networks_in_front_in_one_piece_each(shape):
    x = normal(*shape)
    wide = widen(x)
    assert wide.is_contiguous()
    assert torch.equal(wide, x.movedim(1, 0))


@pytest.mark.parametrize("positions", [(), (5,)])
def test_logits_are_split_into_their_networks(positions):
    wanted = normal(4, *positions, 3, 7)  # [B, T, N, K]
    assert torch.equal(split_logits(wanted.movedim(-2, 0), 3), wanted)
    if not positions:
        assert torch.equal(split_logits(wanted.flatten(1), 3), wanted)


def test_a_linear_map_behind_images_maps_their_channels():
    layer = layers.Linear(4, 6)
    for i, (name, p) in enumerate(list(layer.named_parameters())):
        setattr(layer, name, nn.Parameter(normal(NUM_NETWORKS, *p.shape[1:], seed=i)))
    x = normal(BATCH, NUM_NETWORKS, 4)
    torch.testing.assert_close(layer(x.flatten(1)), layer(widen(x)).movedim(0, 1).flatten(1))


def test_initial_values_are_spread_over_their_whole_range():
    template = make_template(lambda namespace: namespace.Linear(100, 100))
    values = template.draw(np.random.default_rng(0))
    assert (template.low <= values).all()
    assert (values <= template.high).all()
    np.testing.assert_allclose(np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0]), [-0.1, -0.05, 0, 0.05, 0.1], atol=2e-3)


def test_an_initial_value_for_an_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match=r"^`initial` must name parameters among weight, bias, got 'wieght'\."):
        make_template(lambda namespace: namespace.Linear(2, 2), {"wieght": 0.0})
