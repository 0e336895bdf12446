"""What a command is about: one study or several, under one protocol, as the real thing or in miniature."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.store import write_whole
from stillrobust.study.miniature import miniature_of, read_miniature
from stillrobust.study.schema import Circumstances, Study, StudyRun, find_study, read_study, shipped, union

ASKED = "study.json"  # in a study's folder: what was last asked for, so that other commands need not be told again


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

    @property
    def runs(self) -> list[StudyRun]:
        """Every run once, whichever studies share it."""
        return union(self.runs_of)


def paper_studies() -> list[str]:
    """The shipped studies of the paper's tables and figures."""
    return [name for name, path in shipped().items() if read_study(path).source == "paper.yaml"]


def select(names: Sequence[str], protocol: str | None = None, miniature: bool = False) -> Selection:
    """Read studies by name or path; none means the paper's. Raises ``UserError`` where they cannot be asked for together."""
    names = tuple(names) or tuple(paper_studies())
    studies = tuple(read_study(find_study(name)) for name in names)
    asked = [study.circumstances(protocol) for study in studies]
    if any(one != asked[0] for one in asked):
        raise UserError(f"The studies {', '.join(names)} have different protocols; ask for them one at a time")
    scenes = [Scenes(study.scenes, {}, study.seed, study.source_set) for study in studies]
    if any(one != scenes[0] for one in scenes):
        raise UserError(f"The studies {', '.join(names)} have different scenes; ask for them one at a time")
    runs = tuple(tuple(study.selected()) for study in studies)
    drawn = scenes[0]
    if miniature:
        small = read_miniature()
        runs = tuple(tuple(miniature_of(run, small) for run in some) for some in runs)
        drawn = Scenes(small.scenes, small.sizes, studies[0].seed)
    chosen = protocol or next(iter(studies[0].protocols), "")
    return Selection(names, studies, runs, asked[0], chosen, miniature, drawn)


def remember(selection: Selection, out: Path) -> None:
    """Write down what was asked for."""
    asked = {
        "studies": [str(Path(name).resolve()) if Path(name).is_file() else name for name in selection.names],
        "protocol": selection.protocol,
        "miniature": selection.miniature,
    }
    write_whole({out / ASKED: (json.dumps(asked, indent=1, ensure_ascii=False) + "\n").encode()})


def recall(out: Path) -> Selection:
    """What was last asked for in the folder ``out``."""
    try:
        asked = json.loads((out / ASKED).read_text(encoding="utf-8"))
        names, protocol, miniature = list(asked["studies"]), str(asked["protocol"]), bool(asked["miniature"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"Expected a folder that `stillrobust study run` works in, but {out} has no {ASKED}; check --out") from None
    return select(names, protocol or None, miniature)
