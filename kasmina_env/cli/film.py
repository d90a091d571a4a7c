"""Pictures and films of an episode as files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kasmina_env.cli.checks import check_installed, check_new_file
from kasmina_env.envs.env import KasminaEnv
from kasmina_env.envs.pictures import look_at, render_picture
from kasmina_env.envs.render import RENDER_FPS

KINDS = (".png", ".gif", ".mp4")
LAST = 8  # times that the end is shown in a film

Frame = NDArray[np.uint8]  # [H, W, 3]


def check_new_film(out: Path) -> None:
    """Raise one clear sentence where no picture or film could be written to a file later."""
    if out.suffix not in KINDS:
        raise ValueError(f"`out` must end in {', '.join(KINDS)}, got {out}. Change its ending.")
    check_installed("matplotlib")
    if out.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError("`out` must be a .gif or .png where ffmpeg is not installed, got a .mp4. Install it.")
    check_new_file(out, otherwise="")


def picture_of(env: KasminaEnv) -> Frame:
    """Picture of an environment, whatever its render mode."""
    return render_picture(env.problem, env.episodes.state(), 0, look_at(env.episodes, 0))


def save_film(out: Path, frames: Sequence[Frame]) -> None:
    """Write the last picture as .png, or all of them as .gif or .mp4."""
    from matplotlib.animation import FFMpegWriter
    from matplotlib.figure import Figure
    from PIL import Image

    out.parent.mkdir(parents=True, exist_ok=True)
    shown = [*frames, *[frames[-1]] * LAST]
    if out.suffix == ".png":
        Image.fromarray(frames[-1]).save(out)
    elif out.suffix == ".gif":
        pictures = [Image.fromarray(frame).quantize(128) for frame in shown]
        pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=1000 // RENDER_FPS, loop=0)
    else:
        height, width, _ = frames[0].shape
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        image = figure.figimage(frames[0])
        writer = FFMpegWriter(fps=RENDER_FPS)
        with writer.saving(figure, str(out), dpi=100):
            for frame in shown:
                image.set_data(frame)
                writer.grab_frame()
