"""What the first process of a training tells of it: curves for TensorBoard in the run's folder,
lines in the run's log.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stillrobust.runtime.run_log import note
from stillrobust.runtime.tensorboard import Scalars

POINTS = 1000  # of a curve, at most: a training of 90,000 steps leaves 300 kB
LINE_SECONDS = 60.0  # between two lines of the log


class Watched:
    """A training at work: the parts of its loss, its rates and its speed."""

    def __init__(self, folder: Path, log: Path, step: int, steps: int, batch_size: int) -> None:
        self.log, self.steps, self.batch_size = log, steps, batch_size
        self.every = -(-steps // POINTS)
        self.scalars = Scalars(folder, step)
        self.shown = self.told = time.monotonic()
        self.shown_step = step
        if step:
            note(log, f"training goes on after step {step} of {steps}")

    def step(self, step: int, losses: Mapping[str, Tensor], rates: list[float]) -> None:
        """``losses`` of the step that was just taken, and the learning rate of each group of
        parameters.
        """
        now = time.monotonic()
        tell = now - self.told > LINE_SECONDS or step == self.steps
        if step % self.every and not tell:
            return
        parts = {name: value.item() for name, value in losses.items()}
        speed = (step - self.shown_step) * self.batch_size / max(now - self.shown, 1e-9)
        curves = {f"loss/{name}": value for name, value in parts.items()} | {
            "loss": sum(parts.values())
        }
        self.scalars.add(step, curves | {"rate": max(rates), "examples a second": speed})
        self.shown, self.shown_step = now, step
        if tell:
            self.told = now
            listed = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
            note(
                self.log,
                f"step {step} of {self.steps}: loss {listed}; rate {max(rates):.3g}; {speed:.1f}"
                " examples a second",
            )
