"""Jobs that tests run in workers: importable there, and plain data."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.execution import Job
from stillrobust.storage.leases import LeaseHeldError
from stillrobust.training.launch import launched_processes


@dataclass(frozen=True, kw_only=True)
class Nothing(Job):
    def run(self, progress):
        pass


@dataclass(frozen=True, kw_only=True)
class Write(Job):
    path: Path
    text: str = "a"
    seconds: float = 0.0

    def run(self, progress):
        progress(1, 2, "half")
        time.sleep(self.seconds)
        self.path.write_text(self.text)
        progress(2, 2, "done")


@dataclass(frozen=True, kw_only=True)
class Append(Job):
    path: Path
    other: Path

    def run(self, progress):
        self.path.write_text(self.other.read_text() + "b")


@dataclass(frozen=True, kw_only=True)
class Refuse(Job):
    def run(self, progress):
        raise UserError("this cannot be done")


@dataclass(frozen=True, kw_only=True)
class Die(Job):
    """Ends its process; with a path, only the first time."""

    path: Path | None = None

    def run(self, progress):
        if self.path is None or not self.path.exists():
            if self.path:
                self.path.write_text("")
            os._exit(1)


@dataclass(frozen=True, kw_only=True)
class WaitFor(Job):
    path: Path

    def run(self, progress):
        if not self.path.exists():
            raise LeaseHeldError("another process is at it")


@dataclass(frozen=True, kw_only=True)
class Divide(Job):
    number: int

    def run(self, progress):
        return 1 / self.number


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@dataclass(frozen=True, kw_only=True)
class RaiseUnpicklable(Job):
    def run(self, progress):
        raise Unpicklable(1, 2)


@dataclass(frozen=True, kw_only=True)
class RecordProcess(Job):
    """Append a line: the job's affinity, process, GPU, threads, and whether it was
    launched_processes.
    """

    path: Path
    seconds: float = 0.3
    with_node: bool = False

    def run(self, progress):
        progress(1, 2, "half")
        node = ""
        if self.with_node:
            import ray

            node = f"{ray.get_runtime_context().get_node_id()} "
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "-")
        time.sleep(self.seconds)
        with self.path.open("a") as file:
            threads = os.environ["OMP_NUM_THREADS"]
            file.write(
                f"{node}{self.affinity} {os.getpid()} {gpu} {threads} {launched_processes()}\n"
            )
