"""Commands that show and check environments: list, describe, check."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from kasmina_env.cli.arguments import Id, Json
from kasmina_env.cli.calibrate import print_calibration
from kasmina_env.cli.console import print_json, print_table, say
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.imports import find_preset
from kasmina_env.settings.paths import config_path, slug
from kasmina_env.settings.presets import PRESETS

if TYPE_CHECKING:
    from kasmina_env.episode.problem import Problem
    from kasmina_env.settings.config import EnvConfig


class Section(NamedTuple):
    """A table of what is known about a problem, for people and for programs."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]

    def records(self) -> list[dict[str, object]]:
        """The rows as plain data."""
        keys = [column.replace(" ", "_") for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]


def list_ids(as_json: Json = False) -> None:
    """List the environments."""
    presets = [PRESETS.get(name) for name in PRESETS]
    rows = [(preset.id, preset.config().horizon, preset.dataset or None, preset.description) for preset in presets]
    if as_json:
        print_json(Section("environments", "", ("id", "steps", "dataset", "description"), rows).records())
        return
    shown = [(*row[:2], f"kasmina data fetch {row[2]}" if row[2] else "comes with the package", row[3]) for row in rows]
    print_table("Environments", ("id", "steps", "data", "what it is"), shown)


def describe(env_id: Id, as_json: Json = False) -> None:
    """Show slots, actions, rules, reward terms, governor, instances, observations and engine of an environment.

    Args:
        env_id: Environment to describe.
    """
    from kasmina_env.episode.data import make_task
    from kasmina_env.episode.problem import make_problem
    from kasmina_env.tasks import SPLITS

    preset = find_preset(env_id)
    problem = make_problem(preset.id)
    sections, file = sections_of(problem), f"{slug(preset.id)}.calibration.json"
    samples: dict[str, int] | None = None
    engine: dict[str, str] | None = None
    with suppress(FileNotFoundError):  # all else is known without data
        engine = engine_here(preset.id)
        samples = {name: len(split) for name, split in make_task(problem).splits.items() if name in SPLITS}
    try:
        path, reason = config_path(file, f"Run `kasmina calibrate {env_id}`.", with_found=True), ""
    except FileNotFoundError as error:
        path, reason = None, str(error)
    if as_json:
        about = {"id": preset.id, "description": preset.description, "steps": problem.config.horizon}
        about |= {"minibatches_per_step": problem.config.batches_per_step, "samples": samples, "engine": engine}
        tables = {section.name: section.records() for section in sections}
        print_json({**about, **tables, "calibration": None if path is None else read_document(path, "gaps")})
        return
    say(f"{preset.id}: {preset.description}\n")
    if samples is None:
        say(f"Samples: not here. Run `kasmina data fetch {preset.dataset}`.")
    else:
        say(f"Samples: {', '.join(f'{name} {size}' for name, size in samples.items())}.")
    say(f"An episode is {problem.horizon} steps of {problem.config.batches_per_step} minibatches.")
    if engine is not None:
        why = f", because {engine['reason']}" if engine["reason"] else ""
        say(f"Networks train here in the {engine['name']} engine{why}.")
    say()
    for section in sections:
        print_table(*section[1:])
    if path is None:
        say(f"Not calibrated: {reason}")
    else:
        print_calibration(path)


def engine_here(env_id: str) -> dict[str, str]:
    """Name of the engine in which networks would train, and the reason why "auto" has only "torch"; none is trained."""
    from kasmina_env.envs.env import KasminaEnv
    from kasmina_env.lifecycle.state import Op
    from kasmina_env.population import ENGINES

    env = KasminaEnv(env_id, warmup_batches=0)
    table, config, slots = env.problem.actions, env.problem.config, env.problem.slot_names
    _, info = env.reset(seed=0)
    for blueprint in config.blueprints:  # one without a kernel takes its networks to "torch" when it is grown
        if ENGINES[info["engine"]] == "torch":
            break
        seeds = [table.find(Op.GERMINATE, slot=slot, blueprint=blueprint)[0] for slot in slots]
        _, info = env.reset(seed=0, options={"planted": seeds})
    return {"name": ENGINES[info["engine"]], "reason": env.engine_reason}


def sections_of(problem: Problem) -> list[Section]:
    """All tables of a problem, from the tables that the code runs on."""
    from kasmina_env.lifecycle.transitions import rules_table

    config, reward = problem.config, problem.reward
    terms = [(name, term.meaning) for name, term in reward.terms.items()]
    rules = ("stage", "operation", "next stage", "requires", "meaning")
    return [
        Section(
            "slots",
            "Slots and what can grow there",
            ("slot", "channels", "blueprint", "parameters", "compute per sample"),
            slot_rows(problem),
        ),
        Section(
            "actions",
            f"Actions ({problem.actions.num_actions}, flat)",
            ("operation", "entries", "choices"),
            action_rows(problem),
        ),
        Section("rules", "Rules", rules, rules_table(config.thresholds)),
        Section("reward", f"Reward '{config.reward}': {reward.description}", ("term", "meaning"), terms),
        Section("governor", "Governor", ("setting", "value", "meaning"), governor_rows(config)),
        Section("instances", "What an instance settles", ("name", "value", "seen"), instance_rows(problem)),
        Section("observation", "Observation", ("entry", "name", "low", "high", "meaning"), observation_rows(problem)),
    ]


def slot_rows(problem: Problem) -> list[tuple[object, ...]]:
    """Parameters and compute of the host, then of each blueprint in each slot."""
    from kasmina_env.settings.config import Operator

    costs, add = problem.costs, int(Operator.ADD)
    rows: list[tuple[object, ...]] = [("(host)", None, None, int(costs.host_parameters), int(costs.host_compute))]
    for slot, spec in enumerate(problem.host.slots):
        for k, name in enumerate(problem.config.blueprints):
            parameters, compute = costs.seed_parameters[slot, k, add], costs.seed_compute[slot, k, add]
            rows.append((spec.name, spec.channels, name, int(parameters), int(compute)))
    return rows


def action_rows(problem: Problem) -> list[tuple[object, ...]]:
    """Each operation with the number of its actions, and the menus they choose from."""
    from kasmina_env.episode.actions import ARGUMENTS, HEADS
    from kasmina_env.lifecycle.state import Op

    table, rows = problem.actions, list[tuple[object, ...]]()
    for op in Op:
        mine = table.entries[table.op == op]
        if not len(mine):
            continue
        menus = {}
        for head in ARGUMENTS[op]:
            used = dict.fromkeys(mine[:, HEADS.index(head)].tolist())  # in order, each once
            menus[head] = [table.menus[head][i] for i in used]
        rows.append((op.name, len(mine), menus))
    return rows


def instance_rows(problem: Problem) -> list[tuple[object, ...]]:
    """Each number of the instances with its range, and what differs between their hosts."""
    instances, rows = problem.instances, list[tuple[object, ...]]()
    for name, values in instances.numbers.items():
        low, high = float(values.min()), float(values.max())
        value = low if low == high else (low, high)
        rows.append((name, value, "yes" if name in instances.visible else "no" if low != high else "always the same"))
    for name in instances.host_settings[0]:
        choices = sorted({str(settings[name]) for settings in instances.host_settings})
        rows.append((name, choices, "yes" if name in instances.visible else "no"))
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


def governor_rows(config: EnvConfig) -> list[tuple[object, ...]]:
    """Whether there is a governor, and if so what it goes by."""
    from kasmina_env.episode.governor import SYMPTOMS

    if not config.governor:
        return [("governor", False, "networks that diverge stay as they are; governor=True takes them back")]
    symptoms = [(name, None, symptom.words.format_map(vars(config))) for name, symptom in SYMPTOMS.items()]
    return [
        ("governor", True, "a network that diverges goes back to its last good state"),
        ("max_rollbacks", config.max_rollbacks, "rollbacks in an episode; one more ends it with a failure"),
        ("rollback_factor", config.rollback_factor, "multiplier on the learning rate at each rollback"),
        ("rollback_price", config.rollback_price, "reward per rollback"),
        *symptoms,
    ]


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
