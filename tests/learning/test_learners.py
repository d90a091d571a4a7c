"""The training settings that come with this train, the model is saved, loads back and plays; with tiny numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.controllers.policy import HELD_OUT, MAX_SEED, play
from kasmina_env.episode.actions import ActionTable
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.controller_file import config_of_run, load_controller, load_learned, load_policy
from kasmina_env.learning.maskable_policy import Actor, SharedParts, parts_of
from kasmina_env.learning.train import Progress, first_seed, train
from kasmina_env.learning.training_config import TrainingConfig, load_training_config, training_config_path
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.presets import PRESETS

SPIRALS = "Kasmina/Spirals-v0"
SMALL = {"horizon": 8, "batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16}
OFF_POLICY = {"learning_starts": 32, "buffer_size": 200, "batch_size": 16}


def tiny(algorithm: str, **changes: object) -> TrainingConfig:
    """The settings that come for an algorithm, on two episodes of four rows."""
    path = training_config_path(SPIRALS, algorithm)
    config = load_training_config(path, preset=SPIRALS, num_envs=4, total_steps=64, settings=SMALL)
    own = OFF_POLICY if ALGORITHMS.get(algorithm).is_off_policy else {}
    hyperparameters = {**config.hyperparameters, **own}
    if "n_epochs" in hyperparameters:
        hyperparameters["batch_size"] = 32
    return dataclasses.replace(config, hyperparameters=hyperparameters, group=min(config.group, 2), **changes)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_trains_and_loads_back_as_the_same_policy(algorithm, tmp_path):
    model = train(tiny(algorithm), tmp_path / "run")
    assert model.num_timesteps >= 64
    env = KasminaVectorEnv(3, SPIRALS, **SMALL)
    first, again = (play(env, load_learned(tmp_path / "run", env.problem), np.arange(6)) for _ in range(2))
    assert (first.actions == again.actions).all()
    assert first.actions.max() < env.problem.actions.num_actions


@pytest.mark.parametrize("algorithm", ["ppo", "recurrent_ppo"])
def test_it_goes_on_from_its_checkpoint(algorithm, tmp_path):
    train(tiny(algorithm), tmp_path / "run")
    model = train(tiny(algorithm, total_steps=96), tmp_path / "run", resume=True)
    assert model.num_timesteps == 96
    assert len((tmp_path / "run" / "logs" / "progress.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_comes_for_every_algorithm_and_discounts_next_to_nothing(algorithm, preset):
    """On Spirals sooner must be better than later, or a policy puts off what it does anyway (docs/learning.md)."""
    config = load_training_config(training_config_path(preset, algorithm), preset=preset)
    assert config.algorithm == algorithm
    assert config.hyperparameters["gamma"] == (0.98 if (preset, algorithm) == (SPIRALS, "maskable_ppo") else 1.0)


def test_a_run_that_is_stopped_at_once_can_go_on(tmp_path):
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny("ppo"), tmp_path / "run", stop)
    assert train(tiny("ppo"), tmp_path / "run", resume=True).num_timesteps == 64


def test_only_the_masked_one_never_chooses_what_is_not_legal(tmp_path):
    env, chosen = KasminaVectorEnv(3, SPIRALS, **SMALL), {}
    mask = np.zeros((3, env.problem.actions.num_actions), dtype=bool)
    mask[:, 5] = True
    for algorithm in ("maskable_ppo", "ppo"):
        train(tiny(algorithm), tmp_path / algorithm)
        observation, _ = env.reset(seed=0)
        chosen[algorithm] = load_learned(tmp_path / algorithm, env.problem).act(observation, mask).tolist()
    assert chosen["maskable_ppo"] == [5, 5, 5] != chosen["ppo"]


def test_a_recurrent_policy_forgets_where_an_episode_begins(tmp_path):
    train(tiny("recurrent_ppo"), tmp_path / "run")
    env = KasminaVectorEnv(3, SPIRALS, **SMALL)
    policy = load_learned(tmp_path / "run", env.problem)
    first, later = (play(env, policy, np.arange(3)) for _ in range(2))
    assert (first.actions == later.actions).all()


def test_a_run_for_other_menus_is_refused_in_one_sentence(tmp_path):
    train(tiny("maskable_ppo"), tmp_path / "run")
    with pytest.raises(ValueError, match="`run` must be trained on the observations and actions of Kasmina/Digits-v0"):
        load_learned(tmp_path / "run", make_problem("Kasmina/Digits-v0"))


def test_a_wrong_hyperparameter_names_the_nearest(tmp_path):
    config = dataclasses.replace(tiny("ppo"), hyperparameters={"learning_rte": 1})
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_seeds_of_evaluation_cannot_be_trained_on():
    with pytest.raises(ValueError, match="`seed` must be from 0 to"):
        TrainingConfig(seed=HELD_OUT)
    seeds = [first_seed(TrainingConfig(seed=seed)) for seed in range(100)]
    assert max(seeds) + TrainingConfig().num_envs <= MAX_SEED < HELD_OUT
    assert len(set(seeds)) > 90


def test_the_config_of_a_run_is_kept_beside_it(tmp_path):
    train(tiny("a2c"), tmp_path / "run")
    assert load_training_config(tmp_path / "run" / "training.json") == tiny("a2c")


def test_a_rate_can_fall_to_nothing_over_the_run(tmp_path):
    config = tiny("maskable_ppo")
    falling = {**config.hyperparameters, "learning_rate": "lin_0.5"}
    model = train(dataclasses.replace(config, hyperparameters=falling), tmp_path / "run")
    assert [model.lr_schedule(remaining) for remaining in (1.0, 0.5, 0.0)] == [0.5, 0.25, 0.0]


@pytest.mark.parametrize("algorithm", ["maskable_ppo", "ppo", "a2c", "recurrent_ppo"])
def test_the_weight_of_the_entropy_can_fall_to_nothing_over_the_run(algorithm, tmp_path, monkeypatch):
    weights = []
    model_class = ALGORITHMS.get(algorithm).model
    learn_from_rollout = model_class.train
    monkeypatch.setattr(model_class, "train", lambda self: (weights.append(self.ent_coef), learn_from_rollout(self)))
    falling = {**tiny(algorithm).hyperparameters, "ent_coef": "lin_0.5", "n_steps": 8}
    train(dataclasses.replace(tiny(algorithm, total_steps=64), hyperparameters=falling), tmp_path / "run")
    assert weights == [0.25, 0.0]
    longer = dataclasses.replace(tiny(algorithm, total_steps=128), hyperparameters=falling)
    train(longer, tmp_path / "run", resume=True)
    assert weights[2:] == [0.125, 0.0]


def test_an_untrained_policy_neither_grows_all_the_time_nor_never(tmp_path):
    falling = {**tiny("maskable_ppo").hyperparameters, "learning_rate": "lin_0.0"}
    train(dataclasses.replace(tiny("maskable_ppo"), hyperparameters=falling, imitate=False), tmp_path / "run")
    env = KasminaVectorEnv(256, SPIRALS, **SMALL)
    observation, _ = env.reset(seed=0)
    model = load_policy(load_controller(tmp_path / "run"), env.problem)
    torch.manual_seed(0)
    actions, _ = model.predict(observation, action_masks=env.action_masks(), deterministic=False)
    num_germinations = (env.problem.actions.op == Op.GERMINATE).sum()
    share = np.mean(actions == 0)
    assert share == pytest.approx(1 / (1 + num_germinations**0.5), abs=0.06)


def ordinary(**changes):
    return dataclasses.replace(tiny("maskable_ppo"), **{"nearness": False, "shared_parts": False, **changes})


def near(**changes):
    return ordinary(nearness=True, **changes)


def sharing(**changes):
    return ordinary(shared_parts=True, **changes)


def test_paid_for_nearness_alone_a_policy_comes_to_what_is_preferred_among_what_is_legal(tmp_path):
    train(near(total_steps=32), tmp_path / "run")
    policy = load_policy(load_controller(tmp_path / "run"), make_problem(SPIRALS, **SMALL))
    num_actions = policy.action_space.n
    observation = torch.randn(1, *policy.observation_space.shape)
    actions, mask = torch.zeros(1, dtype=torch.long), torch.arange(num_actions)[None] % 3 > 0
    wanted = policy.preferences.masked_fill(~mask, -torch.inf).softmax(-1)
    with torch.no_grad():
        policy.action_net.bias.copy_(torch.linspace(-3, 3, num_actions))
    optimiser = torch.optim.Adam([policy.action_net.bias], lr=0.1)
    _, _, before = policy.evaluate_actions(observation, actions, mask)
    for _ in range(300):
        _, _, nearness = policy.evaluate_actions(observation, actions, mask)
        optimiser.zero_grad()
        nearness.sum().neg().backward()
        optimiser.step()
    found = policy.get_distribution(observation, action_masks=mask.numpy()).distribution.probs
    assert before.item() < -0.5
    assert nearness.item() == pytest.approx(0, abs=1e-3)
    assert torch.allclose(found, wanted, atol=5e-3)


def test_where_all_are_preferred_alike_nearness_is_entropy_less_what_it_is_at_most(tmp_path):
    policy = train(near(total_steps=32), tmp_path / "run").policy
    policy.preferences.zero_()
    observation, mask = torch.randn(5, *policy.observation_space.shape), torch.ones(5, policy.action_space.n) > 0
    mask[:, ::2] = False
    actions = torch.ones(5, dtype=torch.long)
    _, _, nearness = policy.evaluate_actions(observation, actions, mask)
    entropy = policy.get_distribution(observation, action_masks=mask.numpy()).distribution.entropy()
    assert torch.allclose(nearness, entropy - mask.sum(-1).log(), atol=1e-5)


def table_of(*wanted: tuple[object, ...]) -> ActionTable:
    """WAIT and some actions of a problem."""
    table = make_problem(SPIRALS, tempos=(3, 5)).actions
    return ActionTable(table.menus, table.entries[[0, *(int(table.find(*values)[0]) for values in wanted)]])


def test_parts_belong_to_one_operation():
    grown = (Op.GERMINATE, "layer0", "mlp", "ADD", 3), (Op.GERMINATE, "layer1", "mlp", "ADD", 5)
    # GERMINATE: ADD layer0 layer1 mlp tempo3 tempo5; PRUNE: layer0 tempo3
    assert parts_of(table_of(*grown, (Op.PRUNE, "layer0", None, None, 3))) == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]


def test_a_curve_is_a_part_where_there_are_several():
    one, two = (make_problem(SPIRALS, curves=curves).actions for curves in (("LINEAR",), ("LINEAR", "COSINE")))
    counts = [np.array(parts_of(table))[table.find(Op.GERMINATE)[0]].sum() for table in (one, two)]
    assert counts == [4, 5]


def test_actions_learn_from_those_they_share_parts_with():
    prunes = [(Op.PRUNE, slot, None, None, tempo) for slot in ("layer0", "layer1") for tempo in (0, 3)]
    parts = torch.tensor(parts_of(table_of(*prunes)))
    own = torch.nn.Linear(3, 5)
    layer, x = SharedParts(own, parts), torch.randn(7, 3)
    assert torch.equal(layer(x), own(x))
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x)[:, 1].sum().backward()
    optimiser.step()
    change = (layer(x) - own(x)).detach()
    assert (change[:, 0] == 0).all()
    assert torch.allclose(change[:, 4], torch.zeros(7))
    assert torch.allclose(change[:, 2], change[:, 3])
    assert torch.allclose(3 * change[:, 2], change[:, 1], atol=1e-5)
    assert (change[:, 1].abs() > 1e-3).all()


@pytest.mark.parametrize("config", [near, sharing], ids=["nearness", "shared_parts"])
def test_a_policy_of_our_own_learns_goes_on_and_is_kept(config, tmp_path):
    fresh = train(config(total_steps=1), tmp_path / "fresh").policy
    train(config(), tmp_path / "run")
    model = train(config(total_steps=96), tmp_path / "run", resume=True)
    assert model.num_timesteps == 96
    optimised = [p for group in model.policy.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in optimised} == {id(p) for p in model.policy.parameters()}
    assert set(fresh.state_dict()) == set(model.policy.state_dict())
    model.policy.save(tmp_path / "policy.zip")
    again = Actor.load(tmp_path / "policy.zip", device="cpu")
    observation = torch.randn(3, *again.observation_space.shape)
    distributions = [policy.get_distribution(observation).distribution for policy in (again, model.policy)]
    assert torch.equal(distributions[0].logits, distributions[1].logits)
    assert torch.equal(again.preferences, model.policy.preferences)


@pytest.mark.parametrize("name", ["nearness", "shared_parts"])
def test_a_policy_of_our_own_is_refused_where_it_is_not_known(name, tmp_path):
    train(ordinary(**{name: True}, total_steps=32), tmp_path / "run")
    with pytest.raises(ValueError, match=rf"^`{name}` must be True as in .*, got False\. "):
        train(ordinary(total_steps=128), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=rf"^`{name}` must be False for ppo, got True\. "):
        train(tiny("ppo", **{name: True}), tmp_path / "ppo")
    assert not (tmp_path / "ppo").exists()


def test_a_rate_that_is_no_number_is_refused_in_one_sentence(tmp_path):
    wrong = {**tiny("maskable_ppo").hyperparameters, "learning_rate": "lin_fast"}
    with pytest.raises(ValueError, match=r"^`learning_rate` must be a number behind 'lin_', got 'lin_fast'\. "):
        train(dataclasses.replace(tiny("maskable_ppo"), hyperparameters=wrong), tmp_path / "run")


@pytest.mark.parametrize("left", [[], ["training.json"], ["checkpoint.safetensors"]])
def test_a_run_that_was_not_finished_is_refused(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"^`run` must be a folder with a finished training run, got '.*'\. "):
        config_of_run(tmp_path)
