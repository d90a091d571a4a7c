"""Networks as files: rebuilt bit for bit from the file alone, never from a damaged one, never silently different."""

from __future__ import annotations

import copy
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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from kasmina_env import load_network, register_blueprint, save_network
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.grown import GrownNetwork, GrownSlot, NetworkSpec, build_network
from kasmina_env.networks.hosts import HOSTS, Slot
from kasmina_env.networks.network_file import read_description
from kasmina_env.networks.tensor_file import to_bytes
from kasmina_env.population import Population
from kasmina_env.settings.config import Operator
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
        assert loaded.spec == network.spec
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
def test_the_file_says_what_the_network_is(host, tmp_path):
    network, _ = network_and_inputs(host)
    save_network(network, tmp_path / "net.safetensors", {"score": 0.5})
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]
    document = read_description(tmp_path / "net.safetensors")
    assert (document["schema"], document["metadata"]) == (2, {"score": 0.5})
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
        build_network(NetworkSpec(ShiftHost(), {}), {"network.segments.0.shift": torch.arange(4)}),
        tmp_path / "n.safetensors",
    )
    assert load_network(tmp_path / "n.safetensors")(torch.zeros(2, 4)).tolist() == [[0, 1, 2, 3]] * 2


def test_a_buffer_that_is_not_saved_is_refused():
    with pytest.raises(
        ValueError, match=r"`host` must have no buffer that is not saved, got 'network\.segments\.0\.shift'"
    ):
        build_network(NetworkSpec(ShiftHost(is_saved=False), {}), {})


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


# ── networks that were edited ───────────────────────────────────────────────────────────────────


@pytest.fixture(params=["cnn", "mlp", "transformer"])
def grown(request):
    """A network with a seed in its first slot, and inputs."""
    host = HOSTS.get(request.param)()
    population = Population(host, [0])
    blueprint = "conv_light" if host.topology == "image" else "mlp"
    population.germinate([0], 0, blueprint, Operator.GATE, in_training=False)
    return population.network(0, np.full(len(host.slots), 0.5)), minibatch(host, 1, batch=7)[0][:, 0]


def first(network: nn.Module, kind: type) -> tuple[nn.Module, str]:
    """Owner and name of the first module of a kind."""
    return next((m, name) for m in network.modules() for name, child in m.named_children() if isinstance(child, kind))


def with_other_weights(network):
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(0.9)


def with_other_alpha(network):
    network.slots[0].alpha = 0.25


def with_alpha_one(network):
    network.slots[0].alpha = 1


def without_seed(network):
    network.slots[0] = nn.Identity()


def in_double(network):
    network.double()


@pytest.mark.parametrize("edit", [with_other_weights, with_other_alpha, with_alpha_one, without_seed, in_double])
def test_what_the_description_can_say_is_saved_as_it_is(grown, edit, tmp_path):
    network, x = grown
    edit(network)
    x = x.double() if edit is in_double and x.is_floating_point() else x
    save_network(network, tmp_path / "net.safetensors")
    assert torch.equal(load_network(tmp_path / "net.safetensors")(x), network(x))


def with_another_activation(network):
    owner, name = first(network, (nn.ReLU, nn.GELU))
    setattr(owner, name, nn.Tanh())


def with_another_head(network):
    last = [
        (m, name)
        for m in network.network.modules()
        for name, child in m.named_children()
        if isinstance(child, nn.Linear)
    ]
    owner, name = last[-1]
    setattr(owner, name, nn.Linear(getattr(owner, name).in_features, 5))


def with_a_hook(network):
    network.network.segments[0].register_forward_hook(lambda module, inputs, out: 2 * out)


def with_a_forward_of_its_own(network):
    network.forward = lambda x: x


def with_a_seed_from_elsewhere(network):
    network.slots[1] = GrownSlot(nn.Identity(), 0.5)


def with_another_setting(network):
    network.network.order = tuple(reversed(network.network.order))


def with_a_layer_more(network):
    network.extra = nn.Linear(2, 2)


def with_a_learnable_alpha(network):
    del network.slots[0].alpha
    network.slots[0].alpha = nn.Parameter(torch.tensor(0.5))


EDITS = [
    *(with_another_activation, with_another_head, with_a_hook, with_a_forward_of_its_own, with_a_seed_from_elsewhere),
    *(with_another_setting, with_a_layer_more, with_a_learnable_alpha),
]


@pytest.mark.parametrize("edit", EDITS)
def test_what_it_cannot_say_is_refused_at_saving(grown, edit, tmp_path):
    network, _ = grown
    edit(network)
    with pytest.raises(
        ValueError, match=r"^`network` must be as its host and seeds build it, got .* in place of .*\.pt2"
    ):
        save_network(network, tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_program_of_an_edited_network_computes_what_it_does(grown, tmp_path):
    network, x = grown
    before = network(x)
    with_another_activation(network)
    save_network(network, tmp_path / "net.pt2", {"kept": True}, example=x)
    program = torch.export.load(tmp_path / "net.pt2").module()
    torch.testing.assert_close(program(x), network(x))
    assert not torch.equal(network(x), before)
    found = read_description(tmp_path / "net.pt2")
    assert (found["host"], found["seeds"], found["metadata"]) == (None, None, {"kept": True})


def test_a_copy_is_saved_like_the_original(grown, tmp_path):
    network, x = grown
    save_network(copy.deepcopy(network), tmp_path / "net.safetensors")
    assert torch.equal(load_network(tmp_path / "net.safetensors")(x), network(x))


# ── the caller's modes ──────────────────────────────────────────────────────────────────────────

MODES = [
    torch.inference_mode,
    torch.no_grad,
    lambda: torch.autocast("cpu", torch.bfloat16),
    lambda: torch.device("meta"),
]


@pytest.mark.parametrize("mode", MODES, ids=["inference_mode", "no_grad", "autocast", "meta"])
def test_in_any_mode_of_the_caller_a_network_is_saved_and_loaded_and_can_be_trained(grown, mode, tmp_path):
    network, x = grown
    with mode():
        save_network(network, tmp_path / "net.safetensors")
        loaded = load_network(tmp_path / "net.safetensors")
    assert torch.equal(loaded(x), network(x))
    loaded(x).square().sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())
    torch.optim.Adam(loaded.parameters()).step()


@pytest.mark.parametrize("mode", MODES[:3], ids=["inference_mode", "no_grad", "autocast"])
def test_in_any_mode_of_the_caller_the_program_is_the_same(grown, mode, tmp_path):
    network, x = grown
    with mode():
        save_network(network, tmp_path / "net.pt2", example=x)
    torch.testing.assert_close(torch.export.load(tmp_path / "net.pt2").module()(x), network(x))


# ── files that are not right ────────────────────────────────────────────────────────────────────


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    save_network(network_and_inputs(HOSTS.get("mlp")())[0], path)
    return path


def resave(path: Path, **values: object) -> None:
    """Change the description, with a checksum that fits."""
    tensors, text = load_file(path), json.dumps({**read_description(path), **values})
    path.write_bytes(to_bytes(text, tensors))


SEED = {"slot": 0, "blueprint": "mlp", "operator": "ADD", "alpha": 1.0}


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"schema": 3}, "must have 2 as schema, got 3. Save it with this version."),
        ({"kind": "other"}, "must have 'grown network' as kind, got 'other'. Save it with this version."),
        ({"host": {"name": "mpl", "settings": {}}}, "got 'mpl'. Did you mean 'mlp'? Register it before loading."),
        ({"host": {"name": "mlp"}}, "must have the key 'settings' in its description, got none"),
        ({"host": {"name": "mlp", "settings": {"widht": 3}}}, "got 'widht'. Did you mean 'width'?"),
        ({"host": {"name": "mlp", "settings": {"width": 0}}}, "`width` must be from 1 to 1048576, got 0"),
        ({"host": {"name": "mlp", "settings": {"width": 5}}}, "`tensors` must be the network's own, got (8,) for "),
        ({"seeds": [{**SEED, "blueprint": "mlpp"}]}, "got 'mlpp'. Did you mean 'mlp'? Register it before loading."),
        ({"seeds": [{**SEED, "operator": "SUB"}]}, "`operator` must be one of ADD, MULTIPLY, GATE, got 'SUB'"),
        ({"seeds": [{"slot": 0}]}, "must have the key 'blueprint' in its description, got none"),
        ({"seeds": []}, "which is not part of it"),
        ({"seeds": 3}, "must be of a network that can be built here"),
    ],
)
def test_a_description_that_fits_nothing_is_answered_in_one_sentence(saved, values, sentence):
    resave(saved, **values)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_network(saved)
    assert str(caught.value).startswith(f"`{saved}` must ")
    assert sentence in str(caught.value)


def is_refused_or_the_same(path: Path, content: bytes, wanted: GrownNetwork) -> bool:
    """Load a file with this content: True for one clear sentence, or the network itself."""
    path.write_bytes(content)
    try:
        return are_equal(load_network(path), wanted)
    except ValueError as error:
        return f"{path}" in str(error) and "must" in str(error) and "\n" not in str(error)


def test_no_flipped_bit_goes_unnoticed(saved):
    content, network = saved.read_bytes(), load_network(saved)
    for place in range(0, len(content), 7):
        flipped = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        assert is_refused_or_the_same(saved, flipped, network), place


def test_no_cut_goes_unnoticed(saved):
    content = saved.read_bytes()
    for place in (*range(0, len(content), len(content) // 40), len(content) - 1):
        saved.write_bytes(content[:place])
        with pytest.raises(
            ValueError, match=r"net\.safetensors` must be a whole \.safetensors file, got a damaged one"
        ):
            load_network(saved)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # PyTorch's own exporter
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_program_that_is_cut_short_is_refused(suffix, tmp_path):
    if suffix == ".onnx" and not HAS_ONNX:
        pytest.skip("the extra onnx is not installed")
    network, x = network_and_inputs(HOSTS.get("mlp")())
    path = tmp_path / f"net{suffix}"
    save_network(network, path, example=x)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"^`.*net\.(pt2|onnx)` must be a whole "):
        read_description(path)


def test_weights_of_another_network_are_found(saved):
    with safe_open(saved, "pt") as file:
        inside = file.metadata()
    save_file({name: 2 * tensor for name, tensor in load_file(saved).items()}, saved, inside)
    with pytest.raises(
        ValueError, match=r"net\.safetensors` must be as it was written, got content of another checksum"
    ):
        load_network(saved)


def test_weights_without_a_description_are_refused(saved):
    save_file(load_file(saved), saved)
    with pytest.raises(
        ValueError, match="must be a whole file of a grown network saved by kasmina_env, got one without a description"
    ):
        load_network(saved)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be a file that exists, got .*gone\.safetensors"):
        load_network(tmp_path / "gone.safetensors")


def test_a_file_that_exists_is_kept_unless_it_may_be_replaced(grown, saved):
    network, x = grown
    before = saved.read_bytes()
    with pytest.raises(FileExistsError, match=r"`path` must be new, got .*net\.safetensors, which exists"):
        save_network(network, saved)
    assert saved.read_bytes() == before
    save_network(network, saved, overwrite=True)
    assert torch.equal(load_network(saved)(x), network(x))


@pytest.mark.parametrize("bad", [float("nan"), object()], ids=["nan", "object"])
def test_metadata_that_are_not_json_change_nothing(grown, saved, bad):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match=r"^`metadata` must hold plain JSON values: "):
        save_network(grown[0], saved, {"score": bad}, overwrite=True)
    assert saved.read_bytes() == before


@pytest.mark.parametrize("name", ["net", "net.pt", "net.json"])
def test_a_file_name_that_says_no_format_is_refused(tmp_path, name):
    network, _ = network_and_inputs(HOSTS.get("mlp")())
    with pytest.raises(ValueError, match=r"`path` must end in \.safetensors, \.pt2, \.onnx, got 'net"):
        save_network(network, tmp_path / name)
    with pytest.raises(ValueError, match=r"`path` must end in \.safetensors, got 'net"):
        load_network(tmp_path / name)


# ── without kasmina_env ─────────────────────────────────────────────────────────────────────────


def description_as_weights(network: GrownNetwork, folder: Path) -> dict:
    """What the file of weights says of a network with a score of 0.5."""
    save_network(network, folder / "weights.safetensors", {"score": 0.5})
    return read_description(folder / "weights.safetensors")


@every_host
def test_the_program_computes_the_same_for_any_number_of_samples(host, tmp_path):
    network, x = network_and_inputs(host)
    save_network(network, tmp_path / "net.pt2", {"score": 0.5}, example=x[:2])
    program = torch.export.load(tmp_path / "net.pt2").module()
    for size in (1, 2, 7):
        torch.testing.assert_close(program(x[:size]), network(x[:size]))
    assert read_description(tmp_path / "net.pt2") == description_as_weights(network, tmp_path)


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")  # PyTorch's warning
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
    save_network(network, tmp_path / "net.onnx", {"score": 0.5}, example=x[:2])
    assert read_description(tmp_path / "net.onnx") == description_as_weights(network, tmp_path)
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
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == "gymnasium":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
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
    assert done.stdout.split() == [f"kasmina_env.{name}" for name in ("envs", "lifecycle", "networks", "settings")]
