"""Where a study's results lie, and how far it is: read from files alone, from any terminal, without
loading a model.
"""

import json
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.grid import CLEAN
from stillrobust.names import format_spec, parse_spec, unknown_name_error
from stillrobust.runtime.forecast import NOT_STARTED, format_duration
from stillrobust.runtime.run_log import last_line
from stillrobust.study.miniature import FOLDER
from stillrobust.study.schema import UPSTREAM, Circumstances, StudyRun
from stillrobust.user_files import display_name

FAILURES = "failures.json"
# after which a `study run` that tells nothing is no longer said to be at work
SILENT_SECONDS = 120.0
GENERATED = ("scenes", "source")  # names of data that is drawn here
# what ``write_scenes`` writes
SCENES = {"classification": "folders", "detection": "coco", "segmentation": "maps"}


@dataclass(frozen=True)
class Site:
    """The folder that a study works in, and where its data lies."""

    out: Path
    data: Mapping[str, str] = field(default_factory=dict)
    """Named datasets as ``FORMAT:PATH``."""

    @property
    def results(self) -> Path:
        """The store."""
        return self.out / "results"

    def weights(self, run: StudyRun) -> Path:
        """The folder of a run's weights."""
        return self.out / "runs" / run.folder

    @property
    def progress(self) -> Path:
        """What a ``study run`` that is at work tells other terminals; gone when it ends."""
        return self.out / "progress.json"

    def log(self, folder: str) -> Path:
        """The log of the run whose weights lie in ``folder``: its training and all its evaluations."""
        return self.out / "logs" / f"{folder}.log"

    def checkpoint_of(self, folder: str) -> Path:
        """What a run that makes a backbone writes last."""
        return self.out / "runs" / folder / "checkpoint.json"

    def scenes_of(self, task: str) -> str:
        """The ``FORMAT:PATH`` of the generated data of a task."""
        return f"{SCENES[task]}:{self.out / 'data' / task}"

    def standin_of(self, run: StudyRun) -> Path | None:
        """The file of weights that has to be made for a run in miniature."""
        weights = str(parse_spec(run.backbone)[1].get("weights", ""))
        return self.out / weights if weights.startswith(f"{FOLDER}/") else None

    def backbone_of(self, run: StudyRun) -> str:
        """The spec of a run's backbone, its weights where they lie."""
        made = self.out / "runs" / run.made_by if run.made_by else self.standin_of(run)
        return (
            format_spec(parse_spec(run.backbone)[0], {"weights": str(made)})
            if made
            else run.backbone
        )

    def data_of(self, run: StudyRun, name: str) -> str:
        """The ``FORMAT:PATH`` of a run's data."""
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
    """How far a run is."""

    run: StudyRun
    name: str
    """In the store."""
    trained: bool
    step: int
    """Of an unfinished training, as far as it is kept."""
    done: int
    """Cells that are measured."""
    cells: int
    """Cells that are asked for."""

    @property
    def finished(self) -> bool:
        """Nothing is missing."""
        return self.trained and self.done == self.cells

    @property
    def trains(self) -> bool:
        """Whether the run is a training, and not only an evaluation of published weights."""
        return self.run.transfer != UPSTREAM


def places_of(asked: Circumstances) -> list[tuple[str, int]]:
    """(corruption, severity) of every cell, the clean one first."""
    return [
        CLEAN,
        *(
            (display_name(corruption), severity)
            for corruption in asked.corruptions
            for severity in asked.severities
        ),
    ]


def states(runs: Iterable[StudyRun], asked: Circumstances, site: Site) -> list[RunState]:
    """How far each run is, by the files that are there; ``study run`` also checks what is in them."""
    places = places_of(asked)
    found = []
    for run in runs:
        name, folder = run.name(asked), site.weights(run)
        cells = site.results / "cells" / name
        there = {path.stem for path in cells.glob("[!.]*.json")} if cells.is_dir() else set()
        done = sum(f"{corruption}_{severity}" in there for corruption, severity in places)
        step = int(_json(folder / "resume.json").get("step", 0))
        found.append(
            RunState(run, name, (folder / "model.json").is_file(), step, done, len(places))
        )
    return found


def failures_of(site: Site) -> list[dict[str, str]]:
    """What failed in the last ``study run``."""
    content = _json(site.out / FAILURES, [])
    return content if isinstance(content, list) else []


def _json(path: Path, absent: Any = None) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {} if absent is None else absent


def resolve_data(named: Mapping[str, str], root: Path, given: Sequence[str] = ()) -> dict[str, str]:
    """Named datasets with relative paths taken from ``root``, and those of ``given``
    (NAME=FORMAT:PATH) in their place.
    """
    resolved = {}
    for name, spec in named.items():
        kind, colon, path = spec.partition(":")
        resolved[name] = f"{kind}:{root / Path(path).expanduser()}" if colon else spec
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
    """How far a study is, for a terminal: what is finished in one line, who is at work, then what
    is not finished, what failed.
    """
    finished = sum(state.finished for state in found)
    done, cells = sum(state.done for state in found), sum(state.cells for state in found)
    lines = [
        f"{finished} of {len(found)} runs finished, {done:,} of {cells:,} passes",
        *_at_work(_json(site.progress)),
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
                f"  {state.run.id:<5} {state.name}: {trained}, {state.done} of {state.cells} passes"
            )
            if last := last_line(site.log(state.run.folder)):
                lines.append(f"        {textwrap.shorten(last, 120, placeholder=' ...')}")
    return "\n".join(
        [*lines, *failures_text({failure["job"]: failure["reason"] for failure in failures})]
    )


def _at_work(told: Mapping[str, Any]) -> list[str]:
    """What the last ``study run`` told of itself: rate, time left, jobs at work and what failed so
    far.
    """
    if not {"summary", "running", "failed", "written"} <= told.keys():
        return ["nobody is at work"]
    ago = time.time() - told["written"]
    who = f"{told.get('host')}[{told.get('process')}]"
    if ago > SILENT_SECONDS:
        return [
            f"{who} was at work and has said nothing for {format_duration(ago)}: it was ended, or its job"
            " takes long to tell"
        ]
    lines = [
        f"at work: {who}, {told['summary']}",
        *(f"  {name}: {text}" for name, text in told["running"].items()),
    ]
    return [*lines, *failures_text(told["failed"])]


def failures_text(reasons: Mapping[str, str]) -> list[str]:
    """A line for each job that failed; those that were not begun because of it are counted."""
    after = Counter(
        reason.removeprefix(NOT_STARTED)
        for reason in reasons.values()
        if reason.startswith(NOT_STARTED)
    )
    lines = []
    for name, reason in reasons.items():
        if not reason.startswith(NOT_STARTED):
            kept_back = (
                f" ({after[name]} jobs that come after it were not begun)" if after[name] else ""
            )
            lines.append(f"failed: {name}: {reason}{kept_back}")
    return lines
