"""Networks of tokens: nobody looks ahead, tied weights are one, and the first guess is that all tokens are alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kasmina_env.networks.costs import measure_costs
from kasmina_env.networks.hosts import SegmentedNetwork, TransformerHost
from kasmina_env.networks.layers import widen
from kasmina_env.population import Population
from kasmina_env.population.stack import make_template
from kasmina_env.settings.config import Operator
from kasmina_env.tasks.base import bits_saved
from tests.contract import HOSTS_UNDER_TEST, blueprints_for, minibatch, mixed_population, normal, samples

TOKEN_HOSTS = {name: host for name, host in HOSTS_UNDER_TEST.items() if host.topology == "tokens"}
every_token_host = pytest.mark.parametrize("host", TOKEN_HOSTS.values(), ids=TOKEN_HOSTS)
HOST = TransformerHost(num_classes=7, context=5, width=8)
TIED = ("segments.0.0.token.weight", "segments.2.logits.weight")


def tied(network: SegmentedNetwork) -> list[Tensor]:
    """The weights of the token table, and those of the head."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    return [parameters[name] for name in TIED]


# ── causal ──────────────────────────────────────────────────────────────────────────────────────


@every_token_host
def test_no_output_depends_on_a_later_token(host):
    """Under every blueprint, operator and stage."""
    population, alpha = mixed_population(host, torch.float64)
    x, _ = minibatch(host, 1)
    for row in range(population.num_networks):
        network = population.network(row, alpha[row])
        for place in range(host.context):
            changed = x[:, 0].clone()
            changed[:, place] = (changed[:, place] + 1) % host.num_classes
            is_equal = (network(changed) == network(x[:, 0])).all(dim=2).all(dim=0)
            assert is_equal[:place].all()
            assert not is_equal[place]


@pytest.mark.parametrize("num_heads, reaches", [(0, False), (2, True)])
def test_a_host_without_heads_sees_one_token_at_a_time(num_heads, reaches):
    network = SegmentedNetwork(TransformerHost(7, 5, 8, num_heads=num_heads).build(nn))
    x, other = torch.tensor([[0, 1, 2, 3, 4], [6, 5, 2, 3, 4]])
    left, right = (network(tokens[None], [nn.Identity()] * 2)[0, 2] for tokens in (x, other))
    assert torch.equal(left, right) is not reaches


# ── the first guess ─────────────────────────────────────────────────────────────────────────────


@every_token_host
def test_the_first_loss_is_that_of_guessing(host):
    """Wide, and built of `torch.nn`."""
    population, guess = Population(host, range(4)), math.log(host.num_classes)
    loss, _ = population.evaluate(samples(host), np.zeros((4, population.num_slots)))
    assert ((loss - guess).abs() < 0.02 * guess).all()
    x, y = minibatch(host, 1, batch=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = SegmentedNetwork(host.build(nn))(x[:, 0], [nn.Identity()] * len(host.slots))
    assert abs(F.cross_entropy(logits.flatten(0, 1), y.flatten()) - guess) < 0.02 * guess


# ── tied weights, R10 and R11 ───────────────────────────────────────────────────────────────────


def test_tied_weights_are_counted_once():
    """R10."""
    population, (width, classes, context) = Population(HOST, [0]), (8, 7, 5)
    block = 2 * 2 * width + 4 * width * (width + 1) + (2 * 4 * width * width + 5 * width)
    wanted = (classes + context) * width + 2 * block + 2 * width
    costs = measure_costs(HOST, blueprints_for("tokens"), tuple(Operator))
    taken_home = population.network(0, np.zeros(2))
    counts = (costs.host_parameters, population.setting.host_template.num_parameters)
    assert {*counts, sum(p.numel() for p in taken_home.parameters())} == {wanted}
    assert costs.host_compute == context * (2 * block + 2 * width + classes * width)  # looking up is free


def test_tied_weights_stay_tied_in_every_form():
    """R11: wide, taken home, trained there, saved and loaded."""
    population = Population(HOST, range(3))
    template = population.setting.host_template
    x, y = minibatch(HOST, 3)
    population.train([widen(x)], [y], np.zeros((3, 2)))
    assert TIED[1] not in template.names
    network, other = (population.network(row, np.zeros(2)) for row in (0, 1))
    F.cross_entropy(network(x[:, 0]).flatten(0, 1), y[:, 0].flatten()).backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    other.load_state_dict(network.state_dict())
    for plain in (network.double(), other):
        table, head = tied(plain.network)
        assert table is head
    assert torch.equal(network.float()(x[:, 0]), other(x[:, 0]))


class Calls(TorchDispatchMode):
    """Collect the names of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def test_attention_is_fused_and_positions_are_no_index_made_in_forward():
    """R11."""
    network, (x, _) = SegmentedNetwork(HOST.build(nn)), minibatch(HOST, 1)
    with Calls() as calls, torch.no_grad():
        network(x[:, 0], [nn.Identity()] * 2)
    assert sum("scaled_dot_product" in name for name in calls.names) == HOST.num_layers
    assert calls.names.count("aten.embedding") == 1
    assert not {"aten.arange", "aten.softmax", "aten._softmax"} & set(calls.names)


def test_gathered_features_are_not_copied():
    """R12."""
    network, (x, _) = SegmentedNetwork(HOST.build(nn)), minibatch(HOST, 1)
    with Calls() as calls, torch.no_grad():
        network(x[:, 0], [nn.Identity()] * 2)
    assert not {"aten.clone", "aten.copy_", "aten._to_copy"} & set(calls.names)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"num_layers": 5, "num_segments": 2},
            "`num_layers` must be divisible by `num_segments` = 2, got 5. Change",
        ),
        ({"width": 9, "num_heads": 2}, "`width` must be divisible by `num_heads` = 2, got 9. Change"),
        ({"num_segments": 0}, "`num_segments` must be from 1 to 256, got 0. Raise it."),
        ({"num_heads": -1}, "`num_heads` must be at least 0, got -1. Use 0 for no attention."),
    ],
    ids=str,
)
def test_a_bad_setting_is_named_in_one_sentence(settings, message):
    """R11."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        TransformerHost(**settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("num_layers, num_segments, names", [(6, 2, ("layer2", "layer5")), (3, 1, ("layer2",))])
def test_slots_are_named_after_the_layers_they_follow(num_layers, num_segments, names):
    host = TransformerHost(num_layers=num_layers, num_segments=num_segments)
    assert tuple(slot.name for slot in host.slots) == names


def test_too_many_tokens_are_refused_and_fewer_are_taken_as_the_first():
    network, tokens = SegmentedNetwork(HOST.build(nn)), torch.tensor([[3, 1, 4, 1, 5], [6, 2, 6, 5, 3]])
    fewer, all_of_them = (network(x, [nn.Identity()] * 2) for x in (tokens[:, :3], tokens))
    torch.testing.assert_close(fewer, all_of_them[:, :3])
    with pytest.raises(ValueError, match=r"^`x` must be at most 5 tokens long, got 6\. Cut it, or widen `context`\.$"):
        network(torch.zeros(2, 6, dtype=torch.int64), [nn.Identity()] * 2)


# ── pieces ──────────────────────────────────────────────────────────────────────────────────────


def test_a_wide_embedding_looks_up_each_network_in_its_own_table():
    template = make_template(lambda namespace: namespace.Embedding(7, 4))
    weight = normal(3, 7, 4, dtype=torch.float64).requires_grad_()
    tokens = torch.from_numpy(np.random.default_rng(0).integers(7, size=(2, 3, 5)))
    out = template.call([weight], widen(tokens))
    plain = torch.stack([F.embedding(tokens[:, i], weight[i]) for i in range(3)])
    gradients = [torch.autograd.grad(o.square().sum(), weight)[0] for o in (out, plain)]
    assert torch.equal(out, plain)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_the_starting_values_of_an_embedding_are_as_wide_as_promised():
    values = make_template(lambda namespace: namespace.Embedding(100, 100)).draw(np.random.default_rng(0))
    assert values.std() == pytest.approx(0.02, rel=0.02)


def test_quality_is_the_share_of_bits_that_are_saved_and_below_0_where_more_are_spent():
    logits, y = torch.zeros(2, 3, 2, 4), torch.zeros(2, 2, 3, dtype=torch.int64)  # [B, T, N, C] and [B, N, T]
    logits[0, :, 0, 0], logits[0, :, 1, 1], logits[1, 1, 1] = 50.0, 50.0, torch.nan
    loss, quality = bits_saved(logits, y)
    worse = 1 - 50 / math.log(4)
    torch.testing.assert_close(quality, torch.tensor([[1.0, worse], [0.0, 0.0]]), atol=1e-5, rtol=0)
    assert loss[1, 0] == pytest.approx(math.log(4))
    assert loss[1, 1].isnan()
