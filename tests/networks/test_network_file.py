"""Networks as files: rebuilt bit for bit from the two files alone, in any format, and never from damaged ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kasmina_env import load_network, register_blueprint, save_network
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.grown import GrownNetwork, Recipe, build_network
from kasmina_env.networks.hosts import HOSTS, Slot
from kasmina_env.networks.network_file import KEYS, KIND, SCHEMA
from kasmina_env.population import Population
from kasmina_env.settings.config import Operator
from kasmina_env.settings.documents import document_path, load_pair, save_pair
from tests.contract import every_host, minibatch, mixed_population, normal, state_of
from tests.networks.test_hosts import AwkwardHost

ROOT = Path(__file__).parents[2]
HAS_ONNX = all(find_spec(name) for name in ("onnx", "onnxscript"))


def network_and_inputs(host, row: int = 2) -> tuple[GrownNetwork, torch.Tensor]:
    population, alpha = mixed_population(host, num_networks=6)
    return population.network(row, alpha[row]), minibatch(host, 1, batch=7)[0][:, 0]


def are_equal(left: nn.Module, right: nn.Module) -> bool:
    left_state, right_state = left.state_dict(), right.state_dict()
    return left_state.keys() == right_state.keys() and all(
        torch.equal(left_state[name], right_state[name]) for name in left_state
    )


# ── there and back ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_host
def test_a_loaded_network_is_the_saved_one_bit_for_bit(host, dtype, tmp_path):
    population, alpha = mixed_population(host, dtype, num_networks=12)
    x, _ = minibatch(host, population.num_networks, dtype=dtype)
    for row in range(population.num_networks):
        network, path = population.network(row, alpha[row]), tmp_path / f"{row}.safetensors"
        save_network(network, path)
        loaded = load_network(path)
        assert are_equal(loaded, network)
        assert loaded.recipe == network.recipe
        assert torch.equal(loaded(x[:, row]), network(x[:, row]))


@every_host
def test_a_loaded_network_can_be_trained_and_saved_again(host, tmp_path):
    network, x = network_and_inputs(host)
    save_network(network, tmp_path / "a.safetensors")
    loaded = load_network(str(tmp_path / "a.safetensors"))
    loaded(x).square().sum().backward()
    assert all(p.grad is not None and p.is_leaf for p in loaded.parameters())
    torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    save_network(loaded, tmp_path / "b.safetensors")
    assert torch.equal(load_network(tmp_path / "b.safetensors")(x), loaded(x))


@every_host
def test_the_document_says_what_the_network_is(host, tmp_path):
    network, _ = network_and_inputs(host)
    save_network(network, tmp_path / "net.safetensors", {"score": 0.5})
    document = json.loads((tmp_path / "net.json").read_text())
    assert (document["schema"], document["facts"]) == (1, {"score": 0.5})
    assert HOSTS.get(document["host"]["name"]) is type(host)
    grown = {i for i, slot in enumerate(network.slots) if not isinstance(slot, nn.Identity)}
    assert {seed["slot"] for seed in document["seeds"]} == grown != set()
    tensors = load_file(tmp_path / "net.safetensors")
    assert tensors.keys() == state_of(network).keys()


@dataclass(frozen=True)
class TiedHost:
    """Two layers that share one weight."""

    topology = "vector"
    num_classes = 4
    input_shape = (4,)
    slots = (Slot("only", 4),)

    def build(self, nn) -> list[nn.Module]:
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        second.weight = first.weight
        return [first, second]


def test_tied_weights_are_counted_once_saved_once_and_stay_tied(tmp_path, monkeypatch):
    """R10."""
    monkeypatch.setitem(HOSTS._infos, "tied", TiedHost)
    network = Population(TiedHost(), [0]).network(0, np.zeros(1))
    save_network(network, tmp_path / "net.safetensors")
    for tied in (network, load_network(tmp_path / "net.safetensors")):
        assert sum(p.numel() for p in tied.parameters()) == 16 + 4 + 4
        first, second = tied.network.segments
        assert first.weight is second.weight
    assert len(load_file(tmp_path / "net.safetensors")) == 3
    assert torch.equal(tied(normal(3, 4)), network(normal(3, 4)))


class Shift(nn.Module):
    """Adds a buffer to its input."""

    def __init__(self, is_saved: bool) -> None:
        super().__init__()
        self.register_buffer("shift", torch.ones(4), persistent=is_saved)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


@dataclass(frozen=True)
class ShiftHost:
    """No parameters, one buffer."""

    is_saved: bool = True

    topology = "vector"
    num_classes = 4
    input_shape = (4,)
    slots = ()

    def build(self, nn) -> list[nn.Module]:
        return [Shift(self.is_saved)]


def test_buffers_are_saved_with_the_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(HOSTS._infos, "shift", ShiftHost)
    save_network(
        build_network(Recipe(ShiftHost(), {}), {"network.segments.0.shift": torch.arange(4)}),
        tmp_path / "n.safetensors",
    )
    assert load_network(tmp_path / "n.safetensors")(torch.zeros(2, 4)).tolist() == [[0, 1, 2, 3]] * 2


def test_a_buffer_that_is_not_saved_is_refused():
    with pytest.raises(
        ValueError, match=r"`host` must have no buffer that is not saved, got 'network\.segments\.0\.shift'"
    ):
        build_network(Recipe(ShiftHost(is_saved=False), {}), {})


# ── what a user registered ──────────────────────────────────────────────────────────────────────


def save_with_own_blueprint(path: Path, monkeypatch: pytest.MonkeyPatch) -> GrownNetwork:
    monkeypatch.setattr(BLUEPRINTS, "_infos", dict(BLUEPRINTS._infos))
    register_blueprint("mine", topologies=("vector",))(lambda nn, channels: nn.Linear(channels, channels))
    population = Population(HOSTS.get("mlp")(), [0])
    population.germinate([0], 1, "mine", Operator.ADD, in_training=False)
    network = population.network(0, np.array([0.0, 0.5]))
    save_network(network, path)
    return network


def test_a_blueprint_of_ones_own_is_loaded_where_it_is_registered(tmp_path, monkeypatch):
    network = save_with_own_blueprint(tmp_path / "net.safetensors", monkeypatch)
    assert torch.equal(load_network(tmp_path / "net.safetensors")(normal(3, 2)), network(normal(3, 2)))


def test_an_unregistered_blueprint_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        save_with_own_blueprint(tmp_path / "net.safetensors", patch)
    with pytest.raises(ValueError, match=r"`blueprint` must be one of .*, got 'mine'\. .*Register it before loading\."):
        load_network(tmp_path / "net.safetensors")


def test_an_unregistered_host_is_named_when_it_is_saved(tmp_path):
    network = Population(AwkwardHost(), [0]).network(0, np.zeros(1))
    with pytest.raises(ValueError, match="`network` must have a host that is a registered dataclass, got AwkwardHost"):
        save_network(network, tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


# ── files that are not right ────────────────────────────────────────────────────────────────────


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    save_network(network_and_inputs(HOSTS.get("mlp")())[0], path)
    return path


def resave(path: Path, **values: object) -> None:
    """Change the document, with checksums that fit."""
    payload, document = load_pair(path, KIND, SCHEMA, KEYS)
    save_pair(path, payload, {**document, **values}, overwrite=True)


SEED = {"slot": 0, "blueprint": "mlp", "operator": "ADD", "alpha": 1.0}


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"schema": 2}, "must have 1 as schema, got 2"),
        ({"host": {"name": "mpl", "settings": {}}}, "got 'mpl'. Did you mean 'mlp'? Register it before loading."),
        ({"host": {"name": "mlp"}}, "must have the key 'settings', got none"),
        ({"host": {"name": "mlp", "settings": {"widht": 3}}}, "got 'widht'. Did you mean 'width'?"),
        ({"host": {"name": "mlp", "settings": {"width": 0}}}, "`width` must be at least 1, got 0"),
        ({"host": {"name": "mlp", "settings": {"width": 5}}}, "`tensors` must be the network's own, got (8,) for "),
        ({"seeds": [{**SEED, "blueprint": "mlpp"}]}, "got 'mlpp'. Did you mean 'mlp'? Register it before loading."),
        ({"seeds": [{**SEED, "operator": "SUB"}]}, "`operator` must be one of ADD, MULTIPLY, GATE, got 'SUB'"),
        ({"seeds": [{"slot": 0}]}, "must have the key 'blueprint', got none"),
        ({"seeds": []}, "which is not part of it"),
        ({"seeds": 3}, "must describe a network that can be built here"),
    ],
)
def test_a_document_that_fits_nothing_is_answered_in_one_sentence(saved, values, sentence):
    resave(saved, **values)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_network(saved)
    assert f"{document_path(saved)}` must " in str(caught.value)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("place", [3, 200, -1])
def test_a_flipped_bit_in_the_weights_is_found(saved, place):
    content = bytearray(saved.read_bytes())
    content[place] ^= 4
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.safetensors` must be as it was written"):
        load_network(saved)


def test_weights_of_another_network_are_found(saved):
    tensors = load_file(saved)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, saved)
    with pytest.raises(ValueError, match=r"net\.safetensors` must be as it was written"):
        load_network(saved)


@pytest.mark.parametrize("name", ["net", "net.pt", "net.json"])
def test_a_file_name_that_says_no_format_is_refused(tmp_path, name):
    network, _ = network_and_inputs(HOSTS.get("mlp")())
    with pytest.raises(ValueError, match=r"`path` must end in \.safetensors, \.pt2, \.onnx, got 'net"):
        save_network(network, tmp_path / name)
    with pytest.raises(ValueError, match=r"`path` must end in \.safetensors, got 'net"):
        load_network(tmp_path / name)


# ── without kasmina_env ─────────────────────────────────────────────────────────────────────────


@every_host
def test_the_program_computes_the_same_for_any_number_of_samples(host, tmp_path):
    network, x = network_and_inputs(host)
    save_network(network, tmp_path / "net.pt2", example=x[:2])
    program = torch.export.load(tmp_path / "net.pt2").module()
    for size in (1, 2, 7):
        torch.testing.assert_close(program(x[:size]), network(x[:size]))


@every_host
def test_the_network_exports_strictly_too(host):
    network, x = network_and_inputs(host)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (x[:2],), dynamic_shapes=shapes, strict=True)
    torch.testing.assert_close(program.module()(x), network(x))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_format_that_needs_samples_says_so(suffix, tmp_path):
    if suffix == ".onnx" and not HAS_ONNX:
        pytest.skip("the extra onnx is not installed")
    network, x = network_and_inputs(HOSTS.get("mlp")())
    for example in (None, x[:1]):
        with pytest.raises(ValueError, match="`example` must be two samples or more for this format, got"):
            save_network(network, tmp_path / f"net{suffix}", example=example)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # PyTorch's own exporter
@pytest.mark.skipif(not HAS_ONNX, reason="the extra onnx is not installed")
@every_host
def test_the_onnx_file_computes_the_same_for_any_number_of_samples(host, tmp_path):
    from onnx import load
    from onnx.checker import check_model
    from onnx.reference import ReferenceEvaluator

    network, x = network_and_inputs(host)
    save_network(network, tmp_path / "net.onnx", example=x[:2])
    model = load(tmp_path / "net.onnx")
    check_model(model)
    (logits,) = ReferenceEvaluator(model).run(["logits"], {"x": x.numpy()})
    np.testing.assert_allclose(logits, network(x).detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(HAS_ONNX, reason="the extra onnx is installed")
def test_without_the_extra_onnx_names_it_and_writes_nothing(tmp_path):
    network, x = network_and_inputs(HOSTS.get("mlp")())
    with pytest.raises(ModuleNotFoundError, match=r"`onnx` must be installed .* pip install kasmina-env\[onnx\]\.$"):
        save_network(network, tmp_path / "net.onnx", example=x)
    assert list(tmp_path.iterdir()) == []


AT_HOME = """
import sys, torch
sys.modules["gymnasium"] = None  # as if it were not installed
from kasmina_env import load_network
network, (x, wanted) = load_network(sys.argv[1]), torch.load(sys.argv[2], weights_only=True)
assert torch.equal(network.to("cpu")(x), wanted)
print(*sorted(name for name in sys.modules if name.startswith("kasmina_env.") and name.count(".") == 1))
"""


def test_at_home_neither_gymnasium_nor_the_environment_is_imported(tmp_path):
    network, x = network_and_inputs(HOSTS.get("cnn")())
    save_network(network, tmp_path / "net.safetensors")
    torch.save((x, network(x).detach()), buffer := io.BytesIO())
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    run = [sys.executable, "-c", AT_HOME, str(tmp_path / "net.safetensors"), str(tmp_path / "x.pt")]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [f"kasmina_env.{name}" for name in ("lifecycle", "networks", "settings")]
