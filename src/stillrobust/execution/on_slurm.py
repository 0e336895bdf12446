"""Workers that Slurm starts, as one array of jobs through submitit.

Driver and workers speak through files in a shared folder.

    orders/N/K      job K for worker N, until its end is taken
    replies/N.K     how it ended
    replies/N.news  how far it is
    replies/N.here  worker N has begun
    driver          a count that goes on while the driver lives; workers end when it stands still

Slurm starts a worker again whose node failed or whose time is up, and that goes on with the order
that it finds.
"""

import contextlib
import itertools
import math
import os
import pickle
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import Any

from stillrobust.errors import UserError
from stillrobust.execution.jobs import ONE_THREAD, Ended, Job, News, perform
from stillrobust.storage.files import write_whole

# a worker tells of its progress at most this often: a small file on the shared folder
REPORT_SECONDS = 5.0
POLL_SECONDS = 1.0  # between two looks of an idle worker for an order
BEAT_SECONDS = 10.0  # between two counts of the driver
PATIENCE_SECONDS = 120.0  # of an idle worker with a driver whose count stands still
# between two questions to Slurm about which workers are gone (one sacct for all)
LOOK_SECONDS = 60.0
STARTS = 3  # workers in a row that end before they begin, before the settings are said to be wrong
REQUEUES = 1000  # how often a worker whose time is up is started again
# minutes: a day, which most partitions allow
DEFAULTS = {"job_name": "stillrobust", "time": "1440"}


@dataclass
class _Place:
    """A worker as the driver sees it."""

    slurm: Any
    begun: bool = False
    job: str | None = None
    order: str = ""
    told: int = 0
    """When the news that were read last were written."""


class Slurm:
    """``workers`` jobs of Slurm.

    ``sbatch``: options of sbatch for each, such as ``partition``, ``account``, ``gpus_per_node``;
    ``time`` in minutes. ``folder`` is on every node under the same path.
    """

    alone = False
    memory = math.inf  # Slurm keeps each to its own

    def __init__(
        self,
        workers: int,
        devices: int,
        memory: int,
        folder: Path,
        sbatch: Mapping[str, str] | None = None,
    ) -> None:
        if not util.find_spec("submitit"):
            raise UserError(
                "The engine slurm needs the package submitit; install it: pip install"
                " 'stillrobust[slurm]'"
            )
        if not shutil.which("sbatch") or not shutil.which("srun"):
            raise UserError(
                "Expected Slurm's commands sbatch and srun here, but there are none; run this on a"
                " login node"
            )
        if workers < 1:
            raise UserError(
                "Expected the number of workers for Slurm to start, but got none; say --workers N"
            )
        self.count = workers
        given = {name.replace("-", "_"): value for name, value in (sbatch or {}).items()}
        own = {"cpus_per_task": str(devices)}
        # Beside a GPU it is the GPU's that counts.
        if memory and not any(name.startswith(("gpu", "gres", "mem")) for name in given):
            own["mem"] = f"{math.ceil(memory / 2**30)}GB"
        self.sbatch = {**DEFAULTS, **own, **given}
        if not self.sbatch["time"].isdecimal():
            raise UserError(
                f"Expected time in whole minutes, but got {self.sbatch['time']}; write a day as"
                " time=1440"
            )
        self.box = folder / secrets.token_hex(4)
        self.places: dict[int, _Place] = {}
        self.orders = itertools.count()
        self.failed_starts = 0
        self.beaten = self.looked = -LOOK_SECONDS

    def __enter__(self) -> "Slurm":
        import submitit

        for name in ("orders", "replies"):
            (self.box / name).mkdir(parents=True)
        self.executor = submitit.SlurmExecutor(self.box / "logs", max_num_timeout=REQUEUES)
        known = {
            name: int(value) if value.isdecimal() else value for name, value in self.sbatch.items()
        }
        taken = self.executor._valid_parameters()
        others = {
            name.replace("_", "-"): value for name, value in known.items() if name not in taken
        }
        self.executor.update_parameters(
            **{name: value for name, value in known.items() if name in taken},
            additional_parameters={"requeue": True, **others},
            setup=[f"export {name}={value}" for name, value in ONE_THREAD.items()],
        )
        self._beat()
        self._submit(range(self.count))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        numbers = {str(place.slurm.job_id).partition("_")[0] for place in self.places.values()}
        if numbers:
            subprocess.run(["scancel", *sorted(numbers)], check=False, capture_output=True)
        shutil.rmtree(self.box / "orders", ignore_errors=True)
        (self.box / "driver").unlink(missing_ok=True)  # the logs stay

    def idle(self) -> Sequence[int]:
        """Workers that have begun and have nothing to do."""
        return [
            number for number, place in self.places.items() if place.begun and place.job is None
        ]

    def start(self, worker: int, job: Job) -> None:
        """Write the order."""
        place = self.places[worker]
        place.job, place.order = job.name, str(next(self.orders))
        write_whole({self.box / "orders" / str(worker) / place.order: pickle.dumps(job)})

    def wait(self, seconds: float) -> Sequence[News | Ended]:
        """What the workers wrote, and which Slurm has given up."""
        now = time.monotonic()
        if now - self.beaten > BEAT_SECONDS:
            self._beat()
        told = self._replies()
        if now - self.looked > LOOK_SECONDS:
            self.looked = now
            told += self._lost()
        if not told:
            time.sleep(seconds)
        return told

    def _beat(self) -> None:
        self.beaten = time.monotonic()
        write_whole({self.box / "driver": f"{self.beaten}\n".encode()})

    def _submit(self, numbers: Sequence[int]) -> None:
        try:
            submitted = self.executor.submit_array([Worker(self.box, number) for number in numbers])
        except (subprocess.CalledProcessError, RuntimeError, ValueError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
            raise UserError(f"Slurm takes no such job: {said}; change what --slurm says") from None
        for number, slurm in zip(numbers, submitted, strict=True):
            (self.box / "orders" / str(number)).mkdir()
            self.places[number] = _Place(slurm)

    def _replies(self) -> list[News | Ended]:
        replies, told = self.box / "replies", list[News | Ended]()
        for name in sorted(
            path.name for path in replies.iterdir() if not path.name.startswith(".")
        ):
            worker, _, what = name.partition(".")
            place = self.places.get(int(worker))
            if place is None:
                continue
            if what == "here" and not place.begun:
                place.begun, self.failed_starts = True, 0
            elif (
                what == "news"
                and place.job
                and (written := (replies / name).stat().st_mtime_ns) != place.told
            ):
                place.told = written
                told.append(pickle.loads((replies / name).read_bytes()))
            elif place.job and what == place.order:
                told.append(pickle.loads((replies / name).read_bytes()))
                (self.box / "orders" / worker / what).unlink(missing_ok=True)
                (replies / name).unlink()
                place.job = None
        return told

    def _lost(self) -> list[News | Ended]:
        """What was at work where Slurm says that the worker has ended for good; another one is
        asked for in its place.
        """
        told: list[News | Ended] = []
        if self.places:
            next(iter(self.places.values())).slurm.watcher.update()
        for number, place in list(self.places.items()):
            if not place.slurm.watcher.is_done(place.slurm.job_id, mode="cache"):
                continue
            del self.places[number]
            if place.job:
                told.append(Ended(place.job, lost=True))
            if not place.begun:
                self.failed_starts += 1
                if self.failed_starts == STARTS:
                    last = (place.slurm.stderr() or "it said nothing").strip().splitlines()[-1]
                    raise UserError(
                        f"Workers end before they begin: {last}; see {self.box / 'logs'}"
                    )
            self._submit([max([number, *self.places]) + 1])
        return told


@dataclass(frozen=True)
class Worker:
    """What Slurm runs: order after order, until the driver is gone."""

    box: Path
    number: int

    def __call__(self) -> None:
        """Until nobody gives orders any more."""
        import cv2  # it alone does not read ONE_THREAD

        cv2.setNumThreads(1)
        replies, orders = self.box / "replies", self.box / "orders" / str(self.number)
        write_whole({replies / f"{self.number}.here": b""})
        beat, seen = "", time.monotonic()
        while True:
            with contextlib.suppress(OSError):  # the folder may be away for a while
                for order in sorted(name for name in os.listdir(orders) if name.isdecimal()):  # noqa: PTH208
                    if not (replies / f"{self.number}.{order}").exists():
                        ended = perform(
                            pickle.loads((orders / order).read_bytes()), self._tell, REPORT_SECONDS
                        )
                        write_whole({replies / f"{self.number}.{order}": pickle.dumps(ended)})
                        seen = time.monotonic()
            count = _text(self.box / "driver")
            if count and count != beat:
                beat, seen = count, time.monotonic()
            if time.monotonic() - seen > PATIENCE_SECONDS:
                return
            time.sleep(POLL_SECONDS)

    def checkpoint(self) -> Any:
        """What submitit starts again when the time is up: the same, since its order still lies
        there.
        """
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _tell(self, news: News) -> None:
        with contextlib.suppress(OSError, UserError):  # worth less than the work
            write_whole({self.box / "replies" / f"{self.number}.news": pickle.dumps(news)})


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
