"""Blending: what each operator promises for any finite numbers, and what the gate is when it is new."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kasmina_env.networks.blend import TERMS, Gate, add_term, blend, gate_term, multiply_term, straight_through
from kasmina_env.population import Population
from kasmina_env.population.state import GATE, Part
from kasmina_env.settings.config import Operator
from tests.contract import HOSTS_UNDER_TEST, features, normal

every_operator = pytest.mark.parametrize("operator", Operator)
alphas = st.floats(0, 1, width=32)


def tensors(limit: float = 2.0**60) -> st.SearchStrategy[Tensor]:
    """Three samples of two channels, any finite numbers up to the limit."""
    elements = st.floats(-limit, limit, width=32)
    return hnp.arrays(np.float32, (3, 2), elements=elements).map(torch.from_numpy)


gates = hnp.arrays(np.float32, (3, 1), elements=st.floats(0, 1, width=32)).map(torch.from_numpy)


# ── operators ───────────────────────────────────────────────────────────────────────────────────


def test_every_operator_has_a_term():
    assert list(TERMS) == list(Operator)


@every_operator
@given(h=tensors(float(np.finfo(np.float32).max)), delta=tensors(), gate=gates)
def test_alpha_zero_is_the_identity_exactly(operator, h, delta, gate):
    term = TERMS[operator](h, delta, gate)
    assert torch.equal(blend(h, term, 0.0), h)
    assert torch.equal(blend(h, term, torch.zeros(())), h)


@every_operator
@given(h=tensors(), gate=gates, alpha=alphas)
def test_a_seed_that_changes_nothing_is_the_identity_at_any_alpha(operator, h, gate, alpha):
    assert torch.equal(blend(h, TERMS[operator](h, torch.zeros_like(h), gate), alpha), h)


@every_operator
@given(h=tensors(), delta=tensors(), gate=gates, alpha=alphas)
def test_finite_inputs_give_finite_outputs_and_gradients(operator, h, delta, gate, alpha):
    inputs = [h.requires_grad_(), delta.requires_grad_()]
    out = blend(h, TERMS[operator](h, delta, gate), alpha)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


@given(h=tensors(), delta=tensors(), alpha=alphas)
def test_multiply_stays_within_its_bounds(h, delta, alpha):
    h = h.double()
    out = blend(h, multiply_term(h, delta.double()), alpha)
    rounding = 1e-12 * h.abs()
    assert ((1 - alpha) * h.abs() - rounding <= out.abs()).all()
    assert (out.abs() <= (1 + alpha) * h.abs() + rounding).all()
    assert (out * h >= 0).all()


@given(h=tensors(2.0**10), s=tensors(2.0**10), alpha=alphas)
def test_add_is_linear_interpolation_in_value(h, s, alpha):
    h, s = h.double(), s.double()
    torch.testing.assert_close(blend(h, add_term(h, s - h), alpha), torch.lerp(h, s, alpha), rtol=0, atol=1e-9)


@given(h=tensors(), delta=tensors(), alpha=alphas)
def test_a_gate_lies_between_nothing_and_all_of_add(h, delta, alpha):
    closed, half, opened = (blend(h, gate_term(h, delta, torch.tensor(g)), alpha) for g in (0.0, 0.5, 1.0))
    assert torch.equal(closed, h)
    assert torch.equal(opened, blend(h, add_term(h, delta), alpha))
    assert (half >= torch.minimum(closed, opened)).all()
    assert (half <= torch.maximum(closed, opened)).all()


@pytest.mark.parametrize("operator", [Operator.ADD, Operator.GATE])
def test_the_host_keeps_its_own_gradient_at_weight_one(operator):
    h, x, delta = normal(3, 2).requires_grad_(), normal(3, 2, seed=1), normal(3, 2, seed=2)
    out = blend(h, TERMS[operator](x, delta, torch.full((3, 1), 0.9)), 1.0)
    (gradient,) = torch.autograd.grad(out.sum(), h)
    assert torch.equal(gradient, torch.ones(3, 2))


@every_operator
def test_gradient_reaches_features_and_change(operator):
    h, delta = normal(3, 2).requires_grad_(), normal(3, 2, seed=1).requires_grad_()
    out = blend(h, TERMS[operator](h, delta, torch.full((3, 1), 0.9)), 0.5)
    assert all((g != 0).all() for g in torch.autograd.grad(out.sum(), [h, delta]))


@every_operator
def test_the_reference_input_is_required(operator):
    parameters = inspect.signature(TERMS[operator]).parameters
    assert parameters["x"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match="delta"):
        TERMS[operator](normal(3, 2))


def test_the_gate_operator_without_a_gate_says_so():
    with pytest.raises(AssertionError, match="`gate` must be given to the GATE operator, got None"):
        gate_term(normal(3, 2), normal(3, 2))


@every_operator
def test_an_operator_compiles_without_graph_break(operator):
    torch.compiler.reset()

    def run(h, delta, gate, alpha):
        return blend(h, TERMS[operator](h, delta, gate), alpha)

    inputs = normal(3, 2), normal(3, 2, seed=1), torch.full((3, 1), 0.9), torch.tensor(0.5)
    compiled = torch.compile(run, fullgraph=True, backend="eager")(*inputs)
    torch.testing.assert_close(compiled, run(*inputs))


# ── types ───────────────────────────────────────────────────────────────────────────────────────


class Casts(TorchDispatchMode):
    """Count conversions between types."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("term_type", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("alpha_type", [torch.float32, torch.bfloat16, None], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_blending_keeps_the_type_of_the_host_and_casts_only_what_differs(dtype, term_type, alpha_type):
    """In bfloat16 too."""
    h, term = normal(3, 2, dtype=dtype), normal(3, 2, dtype=term_type)
    alpha = 0.5 if alpha_type is None else torch.full((3, 1), 0.5, dtype=alpha_type)
    with Casts() as casts:
        out = blend(h, term, alpha)
    assert out.dtype == dtype
    assert casts.count == (term_type != dtype) + (alpha_type not in (None, dtype))


# ── straight-through ────────────────────────────────────────────────────────────────────────────


@given(h=tensors(), bad=st.sampled_from([0.0, 1.0, float("nan"), float("inf")]))
def test_straight_through_keeps_the_value_bit_for_bit(h, bad):
    """Minus zero stays minus zero, and no term can spoil it."""
    out = straight_through(h, torch.full_like(h, bad))
    assert torch.equal(out.view(torch.int32), h.view(torch.int32))


def test_straight_through_has_the_gradients_of_a_sum():
    h, term, weight = (normal(3, 2, seed=i).requires_grad_() for i in range(3))
    plain = h + (term - term.detach())
    wanted = torch.autograd.grad((plain * weight).sum(), [h, term])
    found = torch.autograd.grad((straight_through(h, term) * weight).sum(), [h, term])
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


# ── the gate ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 32, 64])
def test_the_hidden_layer_of_a_gate_is_never_narrower_than_eight(channels):
    assert Gate(nn, "vector", channels).hidden.out_features == max(8, channels // 4)


def fresh_gates(host_name: str) -> dict[str, Tensor]:
    """The gate parameters of new seeds, by name, of ten networks."""
    host = HOSTS_UNDER_TEST[host_name]
    population = Population(host, range(10))
    population.germinate(range(10), 0, "norm" if host.topology == "image" else "lora", Operator.GATE)
    template = population.setting.template(Part(0, GATE))
    weights = population.snapshot().networks.cells[Part(0, GATE)].weights
    return dict(zip(template.names, template.unflatten(weights.parameters), strict=True))


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("host_name", ["cnn", "mlp"])
def test_a_fresh_gate_passes_the_ramp(host_name, scale):
    host, parameters = HOSTS_UNDER_TEST[host_name], fresh_gates(host_name)
    channels = host.slots[0].channels
    gate, x = Gate(nn, host.topology, channels), features(host.topology, channels, dtype=torch.float32)
    for row in range(10):
        gate.load_state_dict({name: p[row] for name, p in parameters.items()})
        assert gate(scale * x).min() >= 0.9


def test_an_image_has_one_gate_value_and_a_token_its_own():
    image, tokens = features("image", 8, dtype=torch.float32), features("tokens", 8, dtype=torch.float32)
    values = Gate(nn, "image", 8)(image)
    assert values.shape == (4, 8, 1, 1)
    assert (values == values[:, :1]).all()
    gate = Gate(nn, "tokens", 8)
    changed = tokens.clone()
    changed[:, 3] += 1
    assert torch.equal(gate(changed)[:, :3], gate(tokens)[:, :3])
    assert not torch.equal(gate(changed)[:, 3], gate(tokens)[:, 3])
