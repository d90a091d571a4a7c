"""Every registered host, and what a user's own host must be able to do."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kasmina_env.networks import layers
from kasmina_env.networks.hosts import (
    HOSTS,
    CNNHost,
    Host,
    MLPHost,
    Slot,
    TransformerHost,
    check_host,
    count_parameters,
    execution_order,
    make_network,
    register_host,
)
from kasmina_env.networks.layers import widen
from kasmina_env.population import Population
from kasmina_env.settings.config import Operator
from tests.contract import (
    IMAGE_HOSTS,
    blueprints_for,
    every_host,
    minibatch,
    mixed_population,
    plain_network,
    samples,
    state_of,
)
from tests.episodes import WAIT, small_vec


@every_host
def test_a_host_keeps_the_protocol(host):
    assert isinstance(host, Host)
    assert host.topology in ("image", "vector", "tokens")
    assert len({slot.name for slot in host.slots}) == len(host.slots) > 0
    assert len(host.build(nn)) == len(host.build(layers)) == len(host.slots) + 1


@every_host
def test_features_at_every_slot_have_the_shape_that_the_host_states(host):
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append(x.shape)
        return x

    x, _ = minibatch(host, 1)
    logits = make_network(host, nn)(x[:, 0], [look] * len(host.slots))
    positions = host.input_shape if host.topology == "tokens" else ()
    assert logits.shape == (5, *positions, host.num_classes)
    for index, shape in zip(execution_order(host.slots), seen, strict=True):
        slot = host.slots[index]
        channel_axis = 1 if host.topology == "image" else -1
        assert shape[channel_axis] == slot.channels
        assert len(shape) == {"image": 4, "vector": 2, "tokens": 3}[host.topology]


@every_host
def test_wide_and_ordinary_host_have_the_same_parameters(host):
    with torch.device("meta"):
        wide, ordinary = (make_network(host, namespace) for namespace in (layers, nn))
    wanted = {name: p.shape for name, p in state_of(ordinary).items()}
    assert {name: p.shape[1:] for name, p in wide.named_parameters()} == wanted


@every_host
def test_equal_hosts_are_equal_values(host):
    assert type(host)(**vars(host)) == host
    assert hash(type(host)(**vars(host))) == hash(host)


# ── images stay channels_last ───────────────────────────────────────────────────────────────────

every_image_host = pytest.mark.parametrize("host", IMAGE_HOSTS.values(), ids=IMAGE_HOSTS)


def is_channels_last(x: object) -> bool:
    return not isinstance(x, Tensor) or x.ndim != 4 or x.is_contiguous(memory_format=torch.channels_last)


@every_image_host
def test_features_stay_channels_last_through_hosts_and_seeds(host):
    population, alpha = mixed_population(host, engine="torch")
    setting, seen = population.setting, []

    def look(module: nn.Module, inputs: tuple[object, ...], out: Tensor) -> None:
        seen.append((module, all(map(is_channels_last, [*inputs, out]))))

    for template in (setting.host_template, *setting.part_templates.values()):
        for module in template.module.modules():
            module.register_forward_hook(look)
    x, y = minibatch(host, population.num_networks)
    population.train([widen(x)], [y], alpha)
    assert len(seen) > 50
    assert [module for module, is_kept in seen if not is_kept] == []


@every_image_host
def test_minibatches_are_channels_last_from_the_start(host):
    inputs, _ = Population(host, range(3)).draw_minibatches(samples(host), 2, 4)
    assert all(x.shape[1] == 3 * host.input_shape[0] and is_channels_last(x) for x in inputs)


class Conversions(TorchDispatchMode):
    """Collect operations that copy a batch of images, as another type or in another memory layout."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.found = batch, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        is_copy = func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten._to_copy, torch.ops.aten.copy_)
        if is_copy and args[0].ndim == 4 and len(args[0]) == self.batch:
            self.found.append(f"{func} {tuple(args[0].shape)}")
        return out


@every_image_host
def test_no_memory_format_is_converted_in_forward(host):
    population, x = Population(host, range(4)), widen(minibatch(host, 4)[0])
    template = population.setting.host_template
    parameters = template.unflatten(population.snapshot().networks.hosts.parameters)
    with Conversions(batch=5) as conversions:
        template.call(parameters, x, [lambda features: features] * len(host.slots))
    assert conversions.found == []


# ── somebody else's host ────────────────────────────────────────────────────────────────────────


class Awkward(nn.Module):
    """A layer whose parameters are called like the slots of a network."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.slots = layer
        self.seed_slots = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.seed_slots(self.slots(x))


@dataclass(frozen=True)
class AwkwardHost:
    """A host of one slot, registered nowhere."""

    topology: str = "vector"
    num_classes: int = 3
    input_shape: tuple[int, ...] = (4,)
    slots: tuple[Slot, ...] = (Slot("only", 8),)

    def build(self, nn) -> list[nn.Module]:
        return [Awkward(nn.Linear(4, 8)), nn.Linear(8, 3)]


def test_a_host_with_slots_in_its_parameter_names_works():
    host = AwkwardHost()
    assert isinstance(host, Host)
    population = Population(host, range(3))
    population.germinate([1], 0, blueprints_for("vector")[0], Operator.ADD, in_training=False)
    before, (x, y) = population.snapshot().networks.hosts.parameters, minibatch(host, 3)
    population.train([widen(x)], [y], np.ones((3, 1)))
    assert ((population.snapshot().networks.hosts.parameters != before).sum(dim=1) > 40).all()
    expected = plain_network(population, np.ones((3, 1)), 1)(x[:, 1])
    torch.testing.assert_close(population.network(1, np.ones(1))(x[:, 1]), expected)


ACTIVATIONS = ("ReLU", "GELU", "Tanh", "Sigmoid", "SiLU", "LeakyReLU", "Softplus", "Identity")


@dataclass(frozen=True)
class OutsideHost:
    """A host of ordinary layers, as somebody else would write it."""

    activation: str = "Tanh"
    width: int = 6

    topology, num_classes, input_shape = "vector", 3, (2,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot("hidden", self.width),)

    def build(self, nn) -> list[nn.Module]:
        first = nn.Sequential(nn.Linear(2, self.width), getattr(nn, self.activation)())
        return [first, nn.Linear(self.width, 3)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_host_of_common_layers_works_from_outside(activation, monkeypatch):
    monkeypatch.setitem(HOSTS._infos, "outside", OutsideHost)
    population, alpha = mixed_population(OutsideHost(activation), num_networks=4)
    x, _ = minibatch(OutsideHost(activation), 4)
    predicted = population.network(2, alpha[2])(x[:, 2])
    torch.testing.assert_close(predicted, plain_network(population, alpha, 2)(x[:, 2]))
    vec = small_vec("Kasmina/Spirals-v0", num_envs=2, host="outside", host_settings={"activation": activation})
    vec.reset(seed=0)
    assert np.isfinite(vec.step(np.full(2, WAIT))[1]).all()


@pytest.mark.parametrize(
    "layer, sentence",
    [
        (
            "Conv1d",
            r"`nn` has no layer 'Conv1d' that runs networks side by side. Did you mean 'Conv2d'? Compose it from ",
        ),
        ("Hardswish", "in a Module of your own, or add it to kasmina_env/networks/layers.py."),
        (
            "Dropout",
            "`nn` has no Dropout: it draws from a random stream that all networks share. Use the settings `augm",
        ),
    ],
)
def test_a_layer_that_is_missing_is_answered_with_what_to_do(layer, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Population(OutsideHost(layer), [0])
    assert sentence in str(caught.value)


@dataclass(frozen=True)
class StubbornHost(OutsideHost):
    """A host that builds its first segment without the namespace it is given."""

    first: nn.Module = field(default_factory=nn.Identity)

    def build(self, nn) -> list[nn.Module]:
        return [self.first, nn.Linear(2, 3)]


class Scale(nn.Module):
    """A parameter that no layer declares."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize(
    "first, sentence",
    [
        (
            nn.Linear(2, 2),
            "from its argument `nn`, got Linear with 'weight' of its own at segments.0. Write nn.Linear ",
        ),
        (nn.Sequential(nn.Tanh(), nn.LayerNorm(2)), "got LayerNorm with 'weight' of its own at segments.0.1."),
        (Scale(), "got Scale with 'scale' of its own at segments.0."),
        (nn.Dropout(0.5), "`build` must use no Dropout, got one at segments.0: it draws from a random stream that all"),
        (nn.BatchNorm1d(2, affine=False), "no layers with buffers, got BatchNorm1d with 'running_mean' at segments.0."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_host_that_does_not_take_the_layers_it_is_given_is_told_so(first, sentence):
    with pytest.raises(ValueError, match=r"^`build` must ") as caught:
        Population(StubbornHost(width=2, first=first), [0])
    assert sentence in str(caught.value)


@dataclass
class ThawedHost:
    """A host that can be changed, and so has no hash."""

    width: int = 4

    topology, num_classes, input_shape = "vector", 3, (2,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot("only", self.width),)

    def build(self, nn) -> list[nn.Module]:
        return [nn.Linear(2, self.width), nn.Linear(self.width, 3)]


def test_a_host_needs_no_hash(monkeypatch):
    monkeypatch.setitem(HOSTS._infos, "thawed", ThawedHost)
    vec = small_vec("Kasmina/Spirals-v0", num_envs=2, host="thawed", host_settings={"width": 6})
    vec.reset(seed=0)
    assert np.isfinite(vec.step(np.full(2, WAIT))[1]).all()


def test_the_turn_of_a_slot_is_named():
    with pytest.raises(TypeError, match="positional"):
        Slot("only", 8, 1)


def test_a_host_is_not_replaced():
    with pytest.raises(ValueError, match="`host` must have a new name, got 'cnn' a second time"):
        register_host("cnn")(AwkwardHost)
    assert HOSTS.get("cnn") is CNNHost


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CNNHost(image_size=4), "`pools` must leave something to pool, got 3 pools for features of size 4."),
        (lambda: CNNHost(stem=3), "`stem` must divide the image size 8, got 3. Use one of its divisors."),
        (
            lambda: CNNHost(kernels=(2, 3)),
            "`kernels` must be odd sizes up to 255, one for each block, got (2, 3). Use e.g.",
        ),
        (lambda: CNNHost(kernels=()), "`kernels` must be odd sizes up to 255, one for each block, got (). Use e.g."),
        (
            lambda: CNNHost(kernels=(-1, 3)),
            "`kernels` must be odd sizes up to 255, one for each block, got (-1, 3). Use e.g.",
        ),
        (lambda: CNNHost(pools=(0, 3)), "`pools` must be different blocks from 0 to 2, got (0, 3). Name blocks that "),
        (lambda: CNNHost(pools=(1, 1)), "`pools` must be different blocks from 0 to 2, got (1, 1). Name blocks that "),
        (lambda: CNNHost(stem=0), "`stem` must be from 1 to 1048576, got 0. Raise it."),
        (lambda: CNNHost(norm="bach"), "`norm` must be one of group, batch, got 'bach'. Did you mean 'batch'?"),
        (lambda: CNNHost(slots_at="behind"), "`slots_at` must be one of before, after, both, got 'behind'."),
        (lambda: CNNHost(width=0), "`width` must be from 1 to 1048576, got 0. Raise it."),
        (lambda: CNNHost(num_classes=0), "`num_classes` must be from 1 to 1048576, got 0. Raise it."),
        (lambda: CNNHost(in_channels=-1), "`in_channels` must be from 1 to 1048576, got -1. Raise it."),
        (lambda: CNNHost(image_size=0), "`image_size` must be from 1 to 1048576, got 0. Raise it."),
        (lambda: MLPHost(width=0), "`width` must be from 1 to 1048576, got 0. Raise it."),
        (lambda: MLPHost(depth=-2), "`depth` must be from 1 to 256, got -2. Raise it."),
        (lambda: MLPHost(width=10**9), "`width` must be from 1 to 1048576, got 1000000000. Lower it."),
        (lambda: MLPHost(depth=10**6), "`depth` must be from 1 to 256, got 1000000. Lower it."),
        (lambda: TransformerHost(num_layers=512), "`num_layers` must be from 1 to 256, got 512. Lower it."),
        (lambda: TransformerHost(context=10**5), "`context` must be from 1 to 8192, got 100000. Lower it."),
        (lambda: TransformerHost(num_heads=10**9), "`width` must be divisible by `num_heads` = 1000000000, got 8."),
        (lambda: CNNHost(kernels=(257,)), "`kernels` must be odd sizes up to 255, one for each block, got (257,)."),
        (lambda: CNNHost(kernels=(1,) * 300, pools=()), "`kernels` must be at most 256 sizes, one for each block, got"),
        (lambda: CNNHost(image_size=10**4), "`image_size` must leave at most 16777216 numbers to a picture and its"),
        (lambda: CNNHost(width=2**19), "`image_size` must leave at most 16777216 numbers to a picture and its"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert str(caught.value).startswith(message)


def test_a_host_is_counted_without_memory_for_it():
    with pytest.raises(ValueError, match=r"of at most 1073741824 parameters, got 4295426051. Make it narrower\.$"):
        check_host(MLPHost(width=2**16))
    assert count_parameters(MLPHost()) == sum(p.numel() for p in make_network(MLPHost(), nn).parameters())


def test_a_host_of_too_many_slots_is_refused():
    with pytest.raises(ValueError, match=r"must make a host of at most 256 slots, got 257. Use fewer layers\.$"):
        check_host(CNNHost(kernels=(1,) * 256, pools=(0,), slots_at="both"))
