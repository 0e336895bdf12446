"""Workers that Slurm starts, as one array of jobs through submitit.

Driver and workers exchange JSON files in a shared folder::

    jobs/N/K             job K of worker N, until the driver has read its end
    events/N.K           how job K ended
    events/N.progress    the latest progress of worker N
    events/N.started     worker N has started
    driver               a count that the driver increases; workers end when it stops changing

Slurm restarts a worker whose node failed or whose time is up. The new process runs the job that it
finds in the folder.
"""

import contextlib
import itertools
import math
import os
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
from stillrobust.execution.jobs import ONE_THREAD, Event, Job, JobEnd, JobProgress, run_job
from stillrobust.execution.serialization import from_json, to_json
from stillrobust.storage.files import write_whole

REPORT_SECONDS = 5.0  # between two progress reports of a worker: a small file on a shared folder
POLL_SECONDS = 1.0  # between two looks of an idle worker for a job
HEARTBEAT_SECONDS = 10.0  # between two counts of the driver
DRIVER_SECONDS = 120.0  # without a new count, after which an idle worker ends
STATE_SECONDS = 60.0  # between two questions to Slurm about ended workers (one sacct for all)
FAILED_STARTS = 3  # in a row, after which the driver gives up
REQUEUES = 1000  # restarts of a worker whose time is up
# minutes: a day, which most partitions allow
DEFAULTS = {"job_name": "stillrobust", "time": "1440"}


@dataclass
class _WorkerState:
    """What the driver knows about a worker."""

    slurm_job: Any
    started: bool = False
    job: str | None = None
    job_file: str = ""
    progress_time: int = 0
    """Modification time of the progress that was read last, in nanoseconds."""


class Slurm:
    """An array of Slurm jobs, each of which is a worker.

    Args:
        workers: The number of workers.
        devices: Cores of one job.
        memory: Bytes of one job; requested unless ``sbatch`` requests GPUs or memory.
        folder: A folder that all nodes see under the same path.
        sbatch: Options of sbatch for each worker, such as ``partition``, ``account``,
            ``gpus_per_node``; ``time`` in minutes.

    Raises:
        UserError: If submitit or Slurm's commands are missing, or an option is wrong.
    """

    retries_alone = False
    memory = math.inf  # Slurm limits the memory of each worker

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
                "Expected the number of workers for Slurm to start, but got none; give --workers N"
            )
        self.count = workers
        given = {name.replace("-", "_"): value for name, value in (sbatch or {}).items()}
        defaults = {**DEFAULTS, "cpus_per_task": str(devices)}
        # On a GPU, the GPU's memory is the limit.
        if memory and not any(name.startswith(("gpu", "gres", "mem")) for name in given):
            defaults["mem"] = f"{math.ceil(memory / 2**30)}GB"
        self.sbatch = {**defaults, **given}
        if not self.sbatch["time"].isdecimal():
            raise UserError(
                f"Expected time in whole minutes, but got {self.sbatch['time']}; write a day as"
                " time=1440"
            )
        self.folder = folder / secrets.token_hex(4)
        self.workers: dict[int, _WorkerState] = {}
        self.job_numbers = itertools.count()
        self.failed_starts = 0
        self.last_heartbeat = self.state_checked = -STATE_SECONDS

    def __enter__(self) -> "Slurm":
        import submitit

        for name in ("jobs", "events"):
            (self.folder / name).mkdir(parents=True)
        self.executor = submitit.SlurmExecutor(self.folder / "logs", max_num_timeout=REQUEUES)
        options = {
            name: int(value) if value.isdecimal() else value for name, value in self.sbatch.items()
        }
        known = self.executor._valid_parameters()
        others = {
            name.replace("_", "-"): value for name, value in options.items() if name not in known
        }
        self.executor.update_parameters(
            **{name: value for name, value in options.items() if name in known},
            additional_parameters={"requeue": True, **others},
            setup=[f"export {name}={value}" for name, value in ONE_THREAD.items()],
        )
        self._write_heartbeat()
        self._start_workers(range(self.count))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        arrays = {
            str(worker.slurm_job.job_id).partition("_")[0] for worker in self.workers.values()
        }
        if arrays:
            subprocess.run(["scancel", *sorted(arrays)], check=False, capture_output=True)
        shutil.rmtree(self.folder / "jobs", ignore_errors=True)
        (self.folder / "driver").unlink(missing_ok=True)  # the logs stay

    def idle_workers(self) -> Sequence[int]:
        """Return the workers that can take a job now, started ones first."""
        return [
            number for number, worker in self.workers.items() if worker.started and not worker.job
        ]

    def submit(self, worker: int, job: Job) -> None:
        """Start a job on an idle worker."""
        state = self.workers[worker]
        state.job, state.job_file = job.name, str(next(self.job_numbers))
        path = self.folder / "jobs" / str(worker) / state.job_file
        write_whole({path: to_json(job).encode()})

    def poll(self, seconds: float) -> Sequence[Event]:
        """Return new events; wait at most ``seconds`` for the first one."""
        now = time.monotonic()
        if now - self.last_heartbeat > HEARTBEAT_SECONDS:
            self._write_heartbeat()
        events = self._read_events()
        if now - self.state_checked > STATE_SECONDS:
            self.state_checked = now
            events += self._lost_jobs()
        if not events:
            time.sleep(seconds)
        return events

    def _write_heartbeat(self) -> None:
        self.last_heartbeat = time.monotonic()
        write_whole({self.folder / "driver": f"{self.last_heartbeat}\n".encode()})

    def _start_workers(self, numbers: Sequence[int]) -> None:
        workers = [SlurmWorker(self.folder, number) for number in numbers]
        try:
            submitted = self.executor.submit_array(workers)
        except (subprocess.CalledProcessError, RuntimeError, ValueError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
            raise UserError(
                f"Slurm refuses the workers: {reason}; change the options of --slurm"
            ) from None
        for number, slurm_job in zip(numbers, submitted, strict=True):
            (self.folder / "jobs" / str(number)).mkdir()
            self.workers[number] = _WorkerState(slurm_job)

    def _read_events(self) -> list[Event]:
        events = list[Event]()
        for path in sorted((self.folder / "events").glob("[!.]*")):
            number, _, suffix = path.name.partition(".")
            worker = self.workers.get(int(number))
            if worker is None:
                continue
            if suffix == "started" and not worker.started:
                worker.started, self.failed_starts = True, 0
            elif suffix == "progress" and worker.job:
                modified = path.stat().st_mtime_ns
                if modified != worker.progress_time:
                    worker.progress_time = modified
                    events.append(from_json(path.read_bytes(), Event))
            elif worker.job and suffix == worker.job_file:
                events.append(from_json(path.read_bytes(), Event))
                (self.folder / "jobs" / number / suffix).unlink(missing_ok=True)
                path.unlink()
                worker.job = None
        return events

    def _lost_jobs(self) -> list[Event]:
        """The jobs of workers that have ended for good; each such worker is replaced."""
        lost: list[Event] = []
        if self.workers:
            next(iter(self.workers.values())).slurm_job.watcher.update()
        for number, worker in list(self.workers.items()):
            slurm_job = worker.slurm_job
            if not slurm_job.watcher.is_done(slurm_job.job_id, mode="cache"):
                continue
            del self.workers[number]
            if worker.job:
                lost.append(JobEnd(worker.job, "lost"))
            if not worker.started:
                self.failed_starts += 1
                if self.failed_starts == FAILED_STARTS:
                    last = (slurm_job.stderr() or "no output").strip().splitlines()[-1]
                    raise UserError(
                        f"Workers end before they start: {last}; see {self.folder / 'logs'}"
                    )
            self._start_workers([max([number, *self.workers]) + 1])
        return lost


@dataclass(frozen=True)
class SlurmWorker:
    """The callable that Slurm starts: runs jobs from the folder until the driver has ended.

    Only this callable passes through submitit's pickle. Jobs and events are JSON.
    """

    folder: Path
    number: int

    def __call__(self) -> None:
        """Run jobs until the driver's count has not changed for :data:`DRIVER_SECONDS`."""
        import cv2  # does not read ONE_THREAD

        cv2.setNumThreads(1)
        events, jobs = self.folder / "events", self.folder / "jobs" / str(self.number)
        write_whole({events / f"{self.number}.started": b""})
        heartbeat, last_sign = "", time.monotonic()
        while True:
            with contextlib.suppress(OSError):  # the shared folder may be away for a while
                for name in sorted(name for name in os.listdir(jobs) if name.isdecimal()):  # noqa: PTH208
                    end_file = events / f"{self.number}.{name}"
                    if not end_file.exists():
                        job = from_json((jobs / name).read_bytes(), Job)
                        end = run_job(job, self._report, REPORT_SECONDS)
                        write_whole({end_file: to_json(end).encode()})
                        last_sign = time.monotonic()
                count = (self.folder / "driver").read_text()
                if count != heartbeat:
                    heartbeat, last_sign = count, time.monotonic()
            if time.monotonic() - last_sign > DRIVER_SECONDS:
                return
            time.sleep(POLL_SECONDS)

    def checkpoint(self) -> Any:
        """Return what submitit restarts when the time is up: this worker, whose job is still in the
        folder.
        """
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _report(self, event: JobProgress) -> None:
        with contextlib.suppress(OSError, UserError):  # progress matters less than the work
            path = self.folder / "events" / f"{self.number}.progress"
            write_whole({path: to_json(event).encode()})
