"""What it would be worth to be told of what kind the first change of the data is, on DigitsDrift."""

from dataclasses import replace

import numpy as np

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.controllers.policy import FIRST_SEEDS, instances_in_turn
from kasmina_env.controllers.reactive import play_rules, read_rules
from kasmina_env.settings.paths import config_path

ID = "Kasmina/DigitsDrift-v0"


def main(num_train: int = 256, num_test: int = 64) -> None:
    problem = make_problem(ID)
    (rule,) = read_rules(config_path("digitsdrift-v0.reactive.json", "Run this in a checkout."))
    choices = {
        "as the rules": (rule,),
        "wait": (),
        "keep at once": (replace(rule, keep_above=0.0, keep_patience=1),),
        "slower ramp": (replace(rule, tempo=max(problem.config.tempos)),),
    }
    env = KasminaVectorEnv(64, problem)

    def play(split: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns of every choice on the episodes of a comparison [C, E], and what changes in each [E]."""
        seeds = FIRST_SEEDS[split] + np.arange(number)
        instances = instances_in_turn(problem, seeds, split)
        changes = [problem.instances.events[i] for i in instances]
        # such as "noise", or "noise, again" where a second change follows
        kinds = [events[0][1] + ", again" * (len(events) > 2) if events else "nothing" for events in changes]
        return play_rules(env, list(choices.values()), seeds, instances), np.array(kinds)

    tried, kinds = play("train", num_train)
    best = {kind: int(tried[:, kinds == kind].mean(axis=1).argmax()) for kind in np.unique(kinds)}
    returns, kinds = play("test", num_test)
    env.close()
    told = returns[[best.get(kind, 0) for kind in kinds], np.arange(num_test)]
    for kind in np.unique(kinds):
        here = kinds == kind
        means = [values[here].mean() for values in (told, returns[0], returns[1])]
        print(f"{kind:14} {here.sum():3} episodes, told: {list(choices)[best.get(kind, 0)]:12}", said(*means))
    print("all", said(told.mean(), returns[0].mean(), returns[1].mean()))


def said(told: float, rules: float, waiting: float) -> str:
    return f"told {told:+.3f}, the rules {rules:+.3f}, waiting {waiting:+.3f}"


if __name__ == "__main__":
    main()
