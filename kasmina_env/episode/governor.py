"""Symptoms of a network that has diverged, though it may still be finite. N networks.

They are relative to a guess on the same samples and to the network's own past, so they mean the same on every task. A
symptom is a suspicion: a network whose data have changed, or whose best seed was pruned, may look as bad as one
that diverged. Therefore the last good state is measured on today's data. Only where it is better has the network
diverged, and there is something to go back to. `kasmina_env.episode.rollback` does so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.settings.config import EnvConfig
from kasmina_env.tasks import Criterion, Split

# The best recent loss rises by a tenth a step, so it has doubled after 7. What was long ago does not count, and a loss
# that rises more slowly than that, as in overfitting, is no divergence.
FORGETTING = 1.1
STEADY = 1.25  # times the best recent loss: noise of minibatches, or of a seed that is being blended in
LEARNED = 2 / 3  # of the loss of a guess: a network below it had learned something
FORGOTTEN = 0.95  # of the loss of a guess: a network above it that guesses knows nothing
GUESS_SAMPLES = 64  # that the loss of a guess is measured on


@dataclass(frozen=True)
class Guess:
    """Figures of answers that do not depend on the sample."""

    loss: float  # where all classes are equally likely
    quality: float  # of the most frequent label for every sample, and two standard errors more


@dataclass(frozen=True, eq=False)
class Record:
    """Memory of the governor about N networks."""

    best_loss: FloatArray  # [N] best recent loss on inner_valid
    num_rollbacks: IntArray  # [N]
    divergence: IntArray  # [N] index into `DIVERGENCES` of the symptom for which the network went back in the last step

    @classmethod
    def begin(cls, loss: FloatArray) -> Record:
        """Record of networks with these losses ``[N]`` before their first step."""
        return cls(loss, *np.zeros((2, len(loss)), dtype=np.int64))

    def is_given_up(self, config: EnvConfig) -> BoolArray:
        """Whether networks diverged more often than they are taken back ``[N]``."""
        return np.asarray(self.num_rollbacks > config.max_rollbacks)


@dataclass(frozen=True, eq=False)
class Signs:
    """Figures that symptoms are read from. Losses may hold NaN. N networks."""

    loss: FloatArray  # [N] on the watched slice of inner_valid
    quality: FloatArray  # [N] on the same
    is_finite: BoolArray  # [N] losses, gradient norms and acting weights are
    record: Record  # before the step

    @property
    def best_loss(self) -> FloatArray:
        """Best recent loss ``[N]``."""
        return np.asarray(FORGETTING * self.record.best_loss)


@dataclass(frozen=True)
class Symptom:
    """A symptom of divergence.

    Attributes:
        holds: Function of signs, a guess and settings that returns whether it is there ``[N]``.
        margin: Factor by which the last good state must be better. What training without trouble does to a loss in a
            step is less.
        words: The symptom in words; {name} stands for a setting.
    """

    holds: Callable[[Signs, Guess, EnvConfig], BoolArray]
    margin: float
    words: str


def _guesses(signs: Signs, guess: Guess) -> BoolArray:
    return np.asarray(signs.quality <= guess.quality)


# fmt: off
SYMPTOMS: Mapping[str, Symptom] = {
    "non_finite": Symptom(
        lambda signs, guess, config: ~signs.is_finite,
        0.0, "a loss, a gradient norm or a weight is not finite (seeds in TRAINING do not count: they do not act)"),
    # Not the loss alone: that of a network which is always sure and sometimes wrong is large too, and it is of use.
    "useless": Symptom(
        lambda signs, guess, config: _guesses(signs, guess) & (signs.loss > config.divergence_loss * guess.loss),
        1.25, "quality of a guess, and {divergence_loss:g} times its loss"),
    # Not below the loss of a guess: from 0.01 to 0.1 is a matter of a few samples.
    "rising": Symptom(
        lambda signs, guess, config:
            (signs.loss > guess.loss) & (signs.loss > config.divergence_rise * signs.best_loss),
        1.25, "loss above that of a guess, and {divergence_rise:g} times the best recent one"),
    # One answer for every sample, as where all units of a layer are off. The loss is then hardly above that of a guess.
    "collapsed": Symptom(
        lambda signs, guess, config:
            _guesses(signs, guess)
            & (signs.loss > FORGOTTEN * guess.loss) & (signs.best_loss < LEARNED * guess.loss),
        1.25, "quality and loss of a guess, and a best recent loss of less than two thirds of that"),
    # With a learning rate that is still too large a network does not explode again; it just never learns.
    "relapsed": Symptom(
        lambda signs, guess, config:
            _guesses(signs, guess) & (signs.loss > guess.loss) & (signs.record.num_rollbacks > 0),
        1.02, "after a rollback, quality of a guess and more than its loss"),
}
# fmt: on
DIVERGENCES = ("", *SYMPTOMS)  # by code
_MARGINS = np.array([np.inf, *(symptom.margin for symptom in SYMPTOMS.values())])


def suspicion(signs: Signs, guess: Guess, config: EnvConfig) -> IntArray:
    """Index into `DIVERGENCES` of the first symptom ``[N]``; 0 if there is none."""
    held = [symptom.holds(signs, guess, config) for symptom in SYMPTOMS.values()]
    return np.asarray(np.select(held, np.arange(1, len(DIVERGENCES)), 0))


def has_diverged(suspected: IntArray, loss: FloatArray, good_loss: FloatArray) -> BoolArray:
    """Whether a suspicion is right: the last good state is better ``[N]``.

    Args:
        suspected: Result of `suspicion` ``[N]``.
        loss: Losses of the networks ``[N]``.
        good_loss: Losses of their last good states on the same data ``[N]``.
    """
    margin = _MARGINS[suspected]
    return np.asarray(np.isfinite(good_loss) & ((margin == 0) | (loss > margin * good_loss)))


def is_good(signs: Signs, loss: FloatArray, guess: Guess) -> BoolArray:
    """Whether a state is one to go back to: better than a guess, or at least not on its way up ``[N]``.

    Args:
        signs: Signs of the step.
        loss: Losses ``[N]``.
        guess: Figures of a guess.
    """
    return np.asarray((loss <= guess.loss) | (loss <= STEADY * signs.best_loss))


def next_record(signs: Signs, suspected: IntArray, goes_back: BoolArray, loss: FloatArray) -> Record:
    """Record after a step.

    Args:
        signs: Signs of the step.
        suspected: Result of `suspicion` ``[N]``. After a suspicion, right or not, the past begins anew.
        goes_back: Whether networks are taken back ``[N]``.
        loss: Losses of the networks as they are now ``[N]``.
    """
    return Record(
        best_loss=np.where(suspected > 0, loss, np.minimum(loss, signs.best_loss)),
        num_rollbacks=signs.record.num_rollbacks + goes_back,
        divergence=np.where(goes_back, suspected, 0),
    )


def measure_guess(watched: Split, num_classes: int, criterion: Criterion) -> Guess:
    """Figures of a guess.

    Args:
        watched: Samples that networks are watched on.
        num_classes: Number of logits.
        criterion: Loss and quality of the task.
    """
    some = watched.head(GUESS_SAMPLES)
    positions = () if some.x.is_floating_point() else some.x.shape[1:]
    logits = torch.zeros(len(some), *positions, 1, num_classes, device=some.y.device)
    loss, _ = criterion(logits, some.y.unsqueeze(1))
    share = float(watched.y.flatten().bincount().max()) / watched.y.numel()
    return Guess(float(loss.mean()), share + 2 * float(np.sqrt(share * (1 - share) / len(watched))))
