"""What a command is about: one study or several, under one protocol, as the real thing or in
miniature.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.storage.leases import write_under_lease
from stillrobust.study.miniature import miniature_of, read_miniature
from stillrobust.study.schema import (
    UPSTREAM,
    Circumstances,
    Study,
    StudyRun,
    find_study,
    read_study,
    shipped,
    union,
)

# in a study's folder: what was last asked for, so that other commands need not be told again
ASKED = "study.json"


@dataclass(frozen=True)
class Scenes:
    """The generated data of a study; see ``write_scenes``."""

    counts: dict[str, int] = field(default_factory=dict)
    """What differs from the defaults of ``SceneCounts``."""
    sizes: dict[str, int] = field(default_factory=dict)
    """``scene_size`` and ``crop_size``, where they differ."""
    seed: int = 0
    source: dict[str, int] = field(default_factory=dict)
    """What differs from the defaults of ``write_source_set``."""


@dataclass(frozen=True)
class Selection:
    """Studies with the runs of each, and all of them once."""

    names: tuple[str, ...]
    """As they were asked for: names of shipped studies, or paths."""
    studies: tuple[Study, ...]
    runs_of: tuple[tuple[StudyRun, ...], ...]
    """The runs of each study, in its order."""
    asked: Circumstances
    protocol: str
    miniature: bool
    scenes: Scenes
    seeds: int = 1
    """How often each training is asked for: at the study's seed and at those after it."""

    @property
    def runs(self) -> list[StudyRun]:
        """Every run once, whichever studies share it."""
        return union(self.runs_of)


def paper_studies() -> list[str]:
    """The shipped studies of the paper's tables and figures."""
    return [name for name, path in shipped().items() if read_study(path).source == "paper.yaml"]


def select(
    names: Sequence[str], protocol: str | None = None, miniature: bool = False, seeds: int = 1
) -> Selection:
    """Read studies by name or path; none means the paper's.

    Raises ``UserError`` where they cannot be asked for together.

    With ``seeds`` every training is there so often: first at the study's seed, under the ids of the
    file, then at those after it, under ids that end in ``-seedN``. Data is drawn once, for all of
    them.
    """
    if seeds < 1:
        raise UserError(f"Expected at least one seed, but got {seeds}; leave --seeds out for one")
    names = tuple(names) or tuple(paper_studies())
    studies = tuple(read_study(find_study(name)) for name in names)
    asked = [study.circumstances(protocol) for study in studies]
    if any(one != asked[0] for one in asked):
        raise UserError(
            f"The studies {', '.join(names)} have different protocols; ask for them one at a time"
        )
    scenes = [Scenes(study.scenes, {}, study.seed, study.source_set) for study in studies]
    if any(one != scenes[0] for one in scenes):
        raise UserError(
            f"The studies {', '.join(names)} have different scenes; ask for them one at a time"
        )
    runs = tuple(
        tuple(run for step in range(seeds) for run in _at_seed(study, step)) for study in studies
    )
    drawn = scenes[0]
    if miniature:
        small = read_miniature()
        runs = tuple(tuple(miniature_of(run, small) for run in some) for some in runs)
        drawn = Scenes(small.scenes, small.sizes, studies[0].seed)
    chosen = protocol or next(iter(studies[0].protocols), "")
    return Selection(names, studies, runs, asked[0], chosen, miniature, drawn, seeds)


def _at_seed(study: Study, step: int) -> list[StudyRun]:
    """The runs of a study at the seed that is ``step`` after its own; of later ones, those that
    another seed changes.
    """
    if step == 0:
        return study.selected()
    seed = study.seed + step
    runs = study.model_copy(update={"seed": seed}).selected()
    for run in runs:
        if run.changes["seed"] != seed:
            raise UserError(
                f"Expected runs that have the seed of their study, but {run.id} of {study.name} has"
                f" changes: {{seed: {run.changes['seed']}}}; take that out, or leave --seeds out"
            )
    return [replace(run, id=f"{run.id}-seed{seed}") for run in runs if run.transfer != UPSTREAM]


def remember(selection: Selection, out: Path) -> None:
    """Write down what was asked for."""
    asked = {
        "studies": [
            str(Path(name).resolve()) if Path(name).is_file() else name for name in selection.names
        ],
        "protocol": selection.protocol,
        "miniature": selection.miniature,
        "seeds": selection.seeds,
    }
    write_under_lease(
        out / ASKED, (json.dumps(asked, indent=1, ensure_ascii=False) + "\n").encode()
    )


def recall(out: Path) -> Selection:
    """What was last asked for in the folder ``out``."""
    try:
        asked = json.loads((out / ASKED).read_text(encoding="utf-8"))
        names, protocol, miniature = (
            list(asked["studies"]),
            str(asked["protocol"]),
            bool(asked["miniature"]),
        )
        seeds = int(asked.get("seeds", 1))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"Expected a folder that `stillrobust study run` works in, but {out} has no {ASKED};"
            " check --out"
        ) from None
    return select(names, protocol or None, miniature, seeds)
