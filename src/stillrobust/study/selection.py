"""The studies of a command: one or several, under one protocol, at real scale or in miniature."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.storage.leases import write_under_lease
from stillrobust.study.files import find_study, read_study, shipped
from stillrobust.study.miniature import miniature_of, read_miniature
from stillrobust.study.runs import StudyRun, selected_runs, union
from stillrobust.study.schema import Study, StudyProtocol
from stillrobust.untrusted import parse_json, read_regular_file

SELECTION_FILE = "study.json"
"""In a study's folder: the selection of the last ``study run``, for the other commands."""


@dataclass(frozen=True)
class GeneratedData:
    """The generated data of a study."""

    counts: dict[str, int] = field(default_factory=dict)
    """Arguments of ``SceneCounts`` that differ from its defaults."""
    sizes: dict[str, int] = field(default_factory=dict)
    """``scene_size`` and ``crop_size`` in pixels, if they differ from the defaults."""
    seed: int = 0
    source: dict[str, int] = field(default_factory=dict)
    """Arguments of ``write_source_set`` that differ from its defaults."""


@dataclass(frozen=True)
class Selection:
    """Studies and their runs."""

    names: tuple[str, ...]
    """Names of shipped studies, or paths, as the user gave them."""
    studies: tuple[Study, ...]
    runs_of: tuple[tuple[StudyRun, ...], ...]
    """The runs of each study, in its order."""
    protocol: StudyProtocol
    protocol_name: str
    miniature: bool
    generated: GeneratedData
    seeds: int = 1
    """Number of seeds of each training: the study's seed and the following ones."""

    @property
    def runs(self) -> list[StudyRun]:
        """Every run once, also if several studies need it."""
        return union(self.runs_of)


def paper_studies() -> list[str]:
    """Return the names of the shipped studies of the paper's tables and figures."""
    return [name for name, path in shipped().items() if read_study(path).source == "paper.yaml"]


def select(
    names: Sequence[str], protocol: str | None = None, miniature: bool = False, seeds: int = 1
) -> Selection:
    """Read studies.

    Args:
        names: Names of shipped studies, or paths; the default is all of the paper's.
        protocol: The name of a protocol of the studies; the default is their first one.
        miniature: Whether to use substitutes for data, weights and steps.
        seeds: Number of seeds of each training. The first is the study's seed, under the ids of the
            file; the following ones have ids that end in ``-seedN``. They share the generated data.

    Returns:
        The studies with their runs.

    Raises:
        UserError: If a study is wrong, or the studies differ in their protocol or generated data.
    """
    if seeds < 1:
        raise UserError(f"Expected at least one seed, but got {seeds}; leave --seeds out for one")
    names = tuple(names) or tuple(paper_studies())
    studies = tuple(read_study(find_study(name)) for name in names)
    protocols = [study.protocol(protocol) for study in studies]
    if any(one != protocols[0] for one in protocols):
        raise UserError(
            f"The studies {', '.join(names)} have different protocols; run them one at a time"
        )
    data = [GeneratedData(study.scenes, {}, study.seed, study.source_set) for study in studies]
    if any(one != data[0] for one in data):
        raise UserError(
            f"The studies {', '.join(names)} have different generated data; run them one at a time"
        )
    runs = tuple(
        tuple(run for step in range(seeds) for run in _at_seed(study, step)) for study in studies
    )
    generated = data[0]
    if miniature:
        small = read_miniature()
        runs = tuple(tuple(miniature_of(run, small) for run in study_runs) for study_runs in runs)
        generated = GeneratedData(small.scenes, small.sizes, studies[0].seed)
    name = protocol or next(iter(studies[0].protocols), "")
    return Selection(names, studies, runs, protocols[0], name, miniature, generated, seeds)


def _at_seed(study: Study, step: int) -> list[StudyRun]:
    """The runs of a study at its seed plus ``step``. Upstream runs have no seed, so they are part
    of the first step only.
    """
    if step == 0:
        return selected_runs(study)
    seed = study.seed + step
    runs = selected_runs(study.model_copy(update={"seed": seed}))
    for run in runs:
        if run.changes["seed"] != seed:
            raise UserError(
                f"Expected runs that have the seed of their study, but {run.id} of {study.name} has"
                f" changes: {{seed: {run.changes['seed']}}}; take that out, or leave --seeds out"
            )
    return [replace(run, id=f"{run.id}-seed{seed}") for run in runs if run.kind != "upstream"]


def save_selection(selection: Selection, out: Path) -> None:
    """Save a selection for the other commands.

    Args:
        selection: The selection.
        out: The folder of the study.
    """
    content = {
        "studies": [
            str(Path(name).resolve()) if Path(name).is_file() else name for name in selection.names
        ],
        "protocol": selection.protocol_name,
        "miniature": selection.miniature,
        "seeds": selection.seeds,
    }
    write_under_lease(out / SELECTION_FILE, (json.dumps(content, indent=1) + "\n").encode())


def load_selection(out: Path) -> Selection:
    """Load the selection of the last ``study run``.

    Args:
        out: The folder of the study.

    Returns:
        The selection, with the study files as they are now.

    Raises:
        UserError: If ``out`` is not the folder of a study.
    """
    try:
        content = parse_json(read_regular_file(out / SELECTION_FILE))
        names, protocol, miniature = (
            [str(name) for name in content["studies"]],
            str(content["protocol"]),
            bool(content["miniature"]),
        )
        seeds = int(content["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"Expected the folder of a `stillrobust study run`, but {out} has no {SELECTION_FILE};"
            " check --out"
        ) from None
    return select(names, protocol or None, miniature, seeds)
