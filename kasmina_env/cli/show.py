"""Commands that show and check environments: list, describe, check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasmina_env.cli.arguments import Id
from kasmina_env.cli.calibrate import print_calibration
from kasmina_env.cli.console import print_table, say
from kasmina_env.cli.imports import find_preset
from kasmina_env.settings.configs import config_path, slug
from kasmina_env.settings.presets import PRESETS

if TYPE_CHECKING:
    from kasmina_env.episode.problem import Problem


def list_ids() -> None:
    """List the environments."""
    rows = []
    for preset in map(PRESETS.get, PRESETS):
        data = f"kasmina data fetch {preset.dataset}" if preset.dataset else "comes with the package"
        rows.append((preset.id, preset.config().horizon, data, preset.description))
    print_table("Environments", ("id", "steps", "data", "what it is"), rows)


def describe(env_id: Id) -> None:
    """Show the slots, actions, rules, reward terms, instances and observations of an environment.

    Args:
        env_id: Environment to describe.
    """
    from kasmina_env.envs.render import rules_table
    from kasmina_env.episode.data import make_task
    from kasmina_env.episode.problem import make_problem
    from kasmina_env.tasks import SPLITS

    preset = find_preset(env_id)
    problem = make_problem(preset.id)
    config, task = problem.config, make_task(problem)
    say(f"{preset.id}: {preset.description}\n")
    samples = ", ".join(f"{name} {len(task.splits[name])}" for name in SPLITS)
    say(f"Samples: {samples}. An episode is {config.horizon} steps of {config.batches_per_step} minibatches.\n")
    columns = ("slot", "blueprint", "parameters", "compute per sample")
    print_table("Slots and what can grow there", columns, slot_rows(problem))
    title = f"Actions ({problem.actions.num_actions}, flat)"
    print_table(title, ("operation", "entries", "choices"), action_rows(problem))
    print_table("Rules", ("stage", "operation", "next stage", "requires", "meaning"), rules_table(config.rules))
    terms = [(name, term.meaning) for name, term in problem.reward.terms.items()]
    print_table(f"Reward '{config.reward}': {problem.reward.description}", ("term", "meaning"), terms)
    print_table("What an instance settles", ("name", "value", "seen"), instance_rows(problem))
    try:
        print_calibration(
            config_path(f"{slug(preset.id)}.calibration.json", f"Run `kasmina calibrate {env_id}`.", True)
        )
    except FileNotFoundError as error:
        say(f"Not calibrated: {error}\n")
    print_table("Observation", ("entry", "name", "low", "high", "meaning"), observation_rows(problem))


def slot_rows(problem: Problem) -> list[tuple[object, ...]]:
    """Parameters and compute of the host, then of each blueprint in each slot."""
    from kasmina_env.settings.config import Operator

    costs, add = problem.costs, int(Operator.ADD)
    rows: list[tuple[object, ...]] = [("(host)", "", int(costs.host_parameters), int(costs.host_compute))]
    for slot, spec in enumerate(problem.host.slots):
        for k, name in enumerate(problem.config.blueprints):
            parameters, compute = costs.seed_parameters[slot, k, add], costs.seed_compute[slot, k, add]
            rows.append((f"{spec.name} ({spec.channels} channels)", name, int(parameters), int(compute)))
    return rows


def action_rows(problem: Problem) -> list[tuple[object, ...]]:
    """Each operation with the number of its actions, and the menus they choose from."""
    from kasmina_env.episode.actions import ARGUMENTS, HEADS
    from kasmina_env.lifecycle.transitions import Op

    table, rows = problem.actions, list[tuple[object, ...]]()
    for op in Op:
        mine = table.entries[table.op == op]
        if not len(mine):
            continue
        menus = []
        for head in ARGUMENTS[op]:
            used = dict.fromkeys(mine[:, HEADS.index(head)].tolist())  # in order, each once
            menus.append(f"{head}: {', '.join(str(table.menus[head][i]) for i in used)}")
        rows.append((op.name, len(mine), "; ".join(menus)))
    return rows


def instance_rows(problem: Problem) -> list[tuple[object, ...]]:
    """Each number of the instances with its range, and what differs between their hosts."""
    instances, rows = problem.instances, list[tuple[object, ...]]()
    for name, values in instances.numbers.items():
        low, high = values.min(), values.max()
        value = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        rows.append((name, value, "yes" if name in instances.visible else "no" if low != high else "always the same"))
    for name in instances.host_settings[0]:
        choices = sorted({str(settings[name]) for settings in instances.host_settings})
        rows.append((name, ", ".join(choices), "yes" if name in instances.visible else "no"))
    train, test = (len(instances.split(name)) for name in ("train", "test"))
    return [("(instances)", f"{train} to train on, {test} to test on" if len(instances) > 1 else "one", ""), *rows]


def observation_rows(problem: Problem) -> list[tuple[object, ...]]:
    """Each entry of the observation with its bounds."""
    entries = zip(
        problem.observations.names,
        problem.observations.low.tolist(),
        problem.observations.high.tolist(),
        problem.observations.meanings,
        strict=True,
    )
    return [(number, *entry) for number, entry in enumerate(entries)]


def check(env_id: Id) -> None:
    """Run the environment checkers of Gymnasium and stable-baselines3, warnings as errors.

    Args:
        env_id: Environment to check, with flat and with factored actions.
    """
    import warnings

    import gymnasium
    from gymnasium.utils.env_checker import check_env
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    name = find_preset(env_id).id
    for form in ("flat", "factored"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = gymnasium.make(name, action_space=form).unwrapped
            check_env(env)
            say(f"gymnasium check_env          {name} {form}", passed=True)
            sb3_check_env(env)
            say(f"stable-baselines3 check_env  {name} {form}", passed=True)
