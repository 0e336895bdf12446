"""The folder of a study and its state, read from files alone: no model is loaded."""

import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillrobust.data import split_dataset_spec
from stillrobust.errors import UserError
from stillrobust.names import format_spec, parse_spec, unknown_name_error
from stillrobust.runtime.forecast import NOT_STARTED, format_duration
from stillrobust.runtime.run_log import last_line
from stillrobust.study.miniature import CHECKPOINT_FOLDER
from stillrobust.study.runs import StudyRun
from stillrobust.study.schema import StudyProtocol
from stillrobust.untrusted import parse_json, read_regular_file

FAILURES = "failures.json"
# without an update of the progress file, after which a `study run` counts as ended
SILENT_SECONDS = 120.0
GENERATED = ("scenes", "source")  # names of generated data
# formats that ``write_scenes`` writes
SCENES = {"classification": "folders", "detection": "coco", "segmentation": "maps"}


@dataclass(frozen=True)
class Site:
    """The folder of a study, and its datasets."""

    out: Path
    data: Mapping[str, str] = field(default_factory=dict)
    """Name -> ``FORMAT:PATH``."""

    @property
    def results(self) -> Path:
        """The folder of the results store."""
        return self.out / "results"

    def weights(self, run: StudyRun) -> Path:
        """Return the folder of a run's weights.

        Args:
            run: The run.

        Returns:
            The folder, which need not exist.
        """
        return self.out / "runs" / run.folder

    @property
    def progress(self) -> Path:
        """The file in which a ``study run`` reports to other terminals; removed when it ends."""
        return self.out / "progress.json"

    def log(self, folder: str) -> Path:
        """Return the log of a run: its training and all its evaluations.

        Args:
            folder: The name of the run's folder of weights.

        Returns:
            The file.
        """
        return self.out / "logs" / f"{folder}.log"

    def checkpoint_of(self, folder: str) -> Path:
        """Return the file that a run of kind ``robustify`` writes last.

        Args:
            folder: The name of the run's folder of weights.

        Returns:
            The file.
        """
        return self.out / "runs" / folder / "checkpoint.json"

    def scenes_of(self, task: str) -> str:
        """Return the generated data of a task.

        Args:
            task: The task.

        Returns:
            ``FORMAT:PATH``.
        """
        return f"{SCENES[task]}:{self.out / 'data' / task}"

    def miniature_checkpoint(self, run: StudyRun) -> Path | None:
        """Return the substitute weights of a run in miniature.

        Args:
            run: The run.

        Returns:
            The file, which need not exist; ``None`` if the run needs no such weights.
        """
        weights = str(parse_spec(run.backbone)[1].get("weights", ""))
        return self.out / weights if weights.startswith(f"{CHECKPOINT_FOLDER}/") else None

    def backbone_of(self, run: StudyRun) -> str:
        """Return the spec of a run's backbone.

        Args:
            run: The run.

        Returns:
            The spec, with the path of weights that the study makes.
        """
        weights = (
            self.out / "runs" / run.backbone_run
            if run.backbone_run
            else self.miniature_checkpoint(run)
        )
        if weights is None:
            return run.backbone
        return format_spec(parse_spec(run.backbone)[0], {"weights": str(weights)})

    def data_of(self, run: StudyRun, name: str) -> str:
        """Return a dataset of a run.

        Args:
            run: The run.
            name: A name of the study's data, ``FORMAT:PATH``, ``scenes`` or ``source``.

        Returns:
            ``FORMAT:PATH``.

        Raises:
            UserError: If there is no data of that name.
        """
        if name == "scenes":
            return self.scenes_of(run.task)
        if name == "source":
            return f"folders:{self.out / 'data' / 'source'}"
        if name in self.data:
            return self.data[name]
        if ":" not in name:
            raise unknown_name_error("data", name, [*self.data, *GENERATED])
        return name


@dataclass(frozen=True)
class RunState:
    """How much of a run is finished."""

    run: StudyRun
    name: str
    """In the store."""
    trained: bool
    step: int
    """The last saved step of an unfinished training."""
    done: int
    """Number of measured cells."""
    cells: int
    """Number of cells of the protocol."""

    @property
    def finished(self) -> bool:
        """Whether the run is trained and all its cells are measured."""
        return self.trained and self.done == self.cells

    @property
    def trains(self) -> bool:
        """Whether the run has a training; an upstream run has none."""
        return self.run.kind != "upstream"


def run_states(runs: Iterable[StudyRun], protocol: StudyProtocol, site: Site) -> list[RunState]:
    """Look up which files of runs exist. Their content is not checked.

    Args:
        runs: The runs.
        protocol: The protocol of the study.
        site: The folder of the study.

    Returns:
        A state for each run.
    """
    cells = protocol.cells()
    found = []
    for run in runs:
        name, weights = run.name(protocol), site.weights(run)
        records = {path.stem for path in (site.results / "cells" / name).glob("[!.]*.json")}
        done = sum(f"{corruption}_{severity}" in records for corruption, severity in cells)
        step = _json(weights / "resume.json").get("step", 0)
        step = step if type(step) is int else 0
        trained = (weights / "model.json").is_file()
        found.append(RunState(run, name, trained, step, done, len(cells)))
    return found


def read_failures(site: Site) -> list[dict[str, str]]:
    """Read the failures of the last ``study run``.

    Args:
        site: The folder of the study.

    Returns:
        ``job`` and ``reason`` of each failure.
    """
    return [
        one
        for one in _json(site.out / FAILURES, [])
        if isinstance(one, dict) and {"job", "reason"} <= one.keys()
    ]


def _json(path: Path, absent: Any = None) -> Any:
    """The content of a JSON file; ``absent`` (default: ``{}``) if there is none of its kind."""
    default = {} if absent is None else absent
    try:
        content = parse_json(read_regular_file(path))
    except (OSError, ValueError):
        return default
    return content if type(content) is type(default) else default


def resolve_data(named: Mapping[str, str], root: Path, given: Sequence[str] = ()) -> dict[str, str]:
    """Resolve the paths of named datasets.

    Args:
        named: Name -> ``FORMAT:PATH`` of a study.
        root: Where relative paths start.
        given: NAME=FORMAT:PATH of the user, which replace those of the study.

    Returns:
        Name -> ``FORMAT:PATH``.

    Raises:
        UserError: If a value of ``given`` is malformed or has an unknown name.
    """
    resolved = {}
    for name, spec in named.items():
        kind, path = split_dataset_spec(spec)
        resolved[name] = f"{kind}:{root / Path(path).expanduser()}" if kind else spec
    for pair in given:
        name, equals, spec = pair.partition("=")
        if not equals or ":" not in spec:
            raise UserError(
                f"Expected --data NAME=FORMAT:PATH, such as coco=coco:/data/coco, but got {pair!r};"
                " correct it"
            )
        if named and name not in named:
            raise unknown_name_error("data", name, named)
        resolved[name] = spec
    return resolved


def status_text(
    site: Site, found: Sequence[RunState], failures: Sequence[Mapping[str, str]]
) -> str:
    """Format the state of a study for a terminal.

    Args:
        site: The folder of the study.
        found: The states of its runs.
        failures: The failures of the last ``study run``.

    Returns:
        A summary, the running process, the unfinished runs and the failures.
    """
    finished = sum(state.finished for state in found)
    done, cells = sum(state.done for state in found), sum(state.cells for state in found)
    lines = [
        f"{finished} of {len(found)} runs finished, {done:,} of {cells:,} cells",
        *_process_lines(_json(site.progress)),
    ]
    for state in found:
        if not state.finished:
            trained = (
                "trained"
                if state.trained
                else f"stopped or at step {state.step}"
                if state.step
                else "not trained"
            )
            lines.append(
                f"  {state.run.id:<5} {state.name}: {trained}, {state.done} of {state.cells} cells"
            )
            if last := last_line(site.log(state.run.folder)):
                lines.append(f"        {textwrap.shorten(last, 120, placeholder=' ...')}")
    return "\n".join(
        [*lines, *failures_text({failure["job"]: failure["reason"] for failure in failures})]
    )


def _process_lines(content: Mapping[str, Any]) -> list[str]:
    """The progress file of a ``study run``: rate, time left, running jobs and failures."""
    if not {"summary", "running", "failed", "written"} <= content.keys():
        return ["no process is running"]
    age = time.time() - content["written"]
    who = f"{content.get('host')}[{content.get('process')}]"
    if age > SILENT_SECONDS:
        silence = format_duration(age)
        return [f"{who} has not reported for {silence}: it was ended, or its job reports rarely"]
    lines = [
        f"running: {who}, {content['summary']}",
        *(f"  {name}: {text}" for name, text in content["running"].items()),
    ]
    return [*lines, *failures_text(content["failed"])]


def failures_text(reasons: Mapping[str, str]) -> list[str]:
    """Format failures for a terminal.

    Args:
        reasons: Job -> reason.

    Returns:
        A line for each failed job. Jobs that were not started because of it are counted.
    """
    after = Counter(
        reason.removeprefix(NOT_STARTED)
        for reason in reasons.values()
        if reason.startswith(NOT_STARTED)
    )
    lines = []
    for name, reason in reasons.items():
        if not reason.startswith(NOT_STARTED):
            not_started = (
                f" ({after[name]} jobs that depend on it were not started)" if after[name] else ""
            )
            lines.append(f"failed: {name}: {reason}{not_started}")
    return lines
