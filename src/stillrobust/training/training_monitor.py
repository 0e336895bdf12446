"""Monitoring of a training: curves for TensorBoard in the run's folder, lines in the run's log."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stillrobust.runtime.run_log import note

MAX_POINTS = 1000  # of a curve: a training of 90,000 steps writes about 300 kB
LOG_SECONDS = 60.0  # between two lines of the log
EVENT_FILES = "events.out.tfevents.*"  # TensorBoard's name for its files


class TrainingMonitor:
    """Writes the parts of the loss, the learning rate and the speed of a training.

    Curves need the package ``tensorboard``. Neither its absence nor a folder that cannot be written
    stops the training.

    Args:
        folder: Folder of the run.
        log: Log file of the run.
        step: Steps that are done already. A resumed training continues its curves from there.
        steps: Steps of the whole training.
        batch_size: Images a step, over all processes.
    """

    def __init__(self, folder: Path, log: Path, step: int, steps: int, batch_size: int) -> None:
        self.log, self.steps, self.batch_size = log, steps, batch_size
        self.interval = -(-steps // MAX_POINTS)
        self.last_point = self.last_line = time.monotonic()
        self.last_step = step
        if step:
            note(log, f"training resumes after step {step} of {steps}")
        self.writer = self._open_writer(folder, step)

    def record(self, step: int, losses: Mapping[str, Tensor], rates: list[float]) -> None:
        """Record a step.

        Args:
            step: Steps done, this one included.
            losses: Parts of the loss by name, each a scalar.
            rates: Learning rate of each parameter group.
        """
        now = time.monotonic()
        logs = now - self.last_line > LOG_SECONDS or step == self.steps
        if step % self.interval and not logs:
            return
        parts = {name: value.item() for name, value in losses.items()}
        speed = (step - self.last_step) * self.batch_size / max(now - self.last_point, 1e-9)
        self.last_point, self.last_step = now, step
        curves = {f"loss/{name}": value for name, value in parts.items()}
        curves |= {"loss": sum(parts.values()), "rate": max(rates), "images per second": speed}
        self._write_point(step, curves)
        if logs:
            self.last_line = now
            listed = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
            note(
                self.log,
                f"step {step} of {self.steps}: loss {listed}; rate {max(rates):.3g}; {speed:.1f}"
                " images per second",
            )

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            with contextlib.suppress(Exception):
                self.writer.close()
            self.writer = None

    def _open_writer(self, folder: Path, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            note(
                self.log,
                "no curves for TensorBoard: run pip install 'stillrobust[tensorboard]' to get them",
            )
            return None
        try:
            if step == 0:
                for older in folder.glob(EVENT_FILES):
                    older.unlink()
            # TensorBoard drops the points of an interrupted training after ``step``
            return SummaryWriter(str(folder), purge_step=step + 1)
        except OSError as error:
            self._log_end(error)
            return None

    def _write_point(self, step: int, curves: Mapping[str, float]) -> None:
        if self.writer is None:
            return
        try:
            for name, value in curves.items():
                self.writer.add_scalar(name, value, step)
            self.writer.flush()  # a killed training keeps its curves
        # the writer's thread passes on whatever stopped it
        except Exception as error:
            self._log_end(error)
            self.writer = None

    def _log_end(self, error: Exception) -> None:
        note(self.log, f"curves for TensorBoard end here: {error}")
