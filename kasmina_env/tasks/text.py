"""Prediction of characters, in a text that comes with every Python."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import torch

from kasmina_env.settings.config import check_sizes
from kasmina_env.tasks.base import Split, Task, bits_saved, register_task

# Fixed, since the text differs between versions of Python; the last symbol stands for every other character.
ALPHABET = "\n " + string.ascii_letters + string.digits + string.punctuation
UNKNOWN = len(ALPHABET)
NUM_WINDOWS = {"train": 6000, "inner_valid": 256, "outer_valid": 512, "test": 512}


def without_repeats(texts: Sequence[str]) -> str:
    """Join texts without repetitions, which could stand in two splits.

    The topics quote each other at length, so each paragraph is kept only where it first comes. Runs of one character,
    as in rules, table frames and padding, are cut to four.
    """
    paragraphs = {" ".join(p.split()): p for text in reversed(texts) for p in reversed(text.split("\n\n"))}
    return re.sub(r"(.)\1{4,}", r"\1" * 4, "\n\n".join(reversed(paragraphs.values())))


@register_task("text")
def text(context: int = 32) -> Task:
    """Language reference inside Python (`pydoc_data.topics`), in windows of characters; each split is a region of it.

    Args:
        context: Length of a window in characters.
    """
    from pydoc_data.topics import topics

    check_sizes({"context": context})
    joined = without_repeats([topics[name] for name in sorted(topics)])
    code = {character: i for i, character in enumerate(ALPHABET)}
    codes = torch.tensor([code.get(character, UNKNOWN) for character in joined], device="cpu")
    num_windows, sizes = len(codes) // (context + 1), list(NUM_WINDOWS.values())
    if sum(sizes) > num_windows:
        longest = len(codes) // sum(sizes) - 1
        raise ValueError(f"`context` must be at most {longest}, got {context}. The text is too short for more.")
    windows = codes[: sum(sizes) * (context + 1)].view(-1, context + 1)
    parts = zip(NUM_WINDOWS, windows.split(sizes), strict=True)
    return Task({name: Split(part[:, :-1], part[:, 1:]) for name, part in parts}, UNKNOWN + 1, bits_saved)
