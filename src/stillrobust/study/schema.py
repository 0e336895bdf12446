"""A study file: axes and differences -> runs.

Read strictly; nothing here loads a model or opens data.

A file either writes its runs itself, as blocks of axes, or takes runs by id from another file
(``from``). A run is known by what it is made of, not by who asks for it: the same run in two
studies has the same name, folder and numbers.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stillrobust.corruptions import CORRUPTIONS
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, SEVERITIES
from stillrobust.names import lookup, parse_spec, unknown_name_error
from stillrobust.samples import TaskName
from stillrobust.storage.files import content_key
from stillrobust.strict_yaml import YamlError, load_yaml
from stillrobust.user_files import display_name, is_user_file, resolve_user_file, with_content_hash

STUDIES = Path(__file__).parent.parent / "studies"
UPSTREAM = "upstream"
"""The transfer that trains nothing: the backbone's own classifier is evaluated."""
ROBUSTIFY = "robustify"
"""The transfer that is none: a backbone is made, for runs whose model is ``run:ID``."""
MADE_BY = "run:"
REGULAR = "regular"
"""How a backbone is labelled that was trained without a technique."""


class Strict(BaseModel):
    """A part of a study file; a key that it does not know is an error that names the nearest."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: Any) -> Any:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        for key in content if isinstance(content, Mapping) else ():
            if key not in names:
                raise unknown_name_error("key", key, names)
        return content


class Values(Strict):
    """What a run is made of. What is left out has the default of the library."""

    task: TaskName | None = None
    model: str | None = None
    """A name of ``models``, the spec of a backbone, or ``run:ID``: the backbone that a run with
    transfer ``robustify`` makes.
    """
    data: str | None = None
    """A name of ``data``, ``FORMAT:PATH``, ``scenes`` (generated), or ``source`` (generated, of
    other classes than the scenes).
    """
    test_data: str | None = None
    """Where it is another set than ``data``."""
    transfer: str | None = None
    recipe: str | None = None
    """A name of ``RECIPES``."""
    changes: dict[str, Any] = {}
    """What differs from the recipe."""
    technique: str | None = None
    """The spec of a robustification that acts during the transfer; a file of your own lies beside
    the study file.
    """
    settings: dict[str, Any] = {}
    """Settings of the task that differ from its defaults."""
    images: int | None = None
    """Evaluate on so many images, evenly spaced over the set."""


class Difference(Values):
    """Values for those runs of a block that have the values in ``when``."""

    when: dict[str, Any]


class Block(Values):
    """Runs that have everything in common but their axes: every combination is one."""

    ids: list[str] = []
    """Names of the runs, in the order of the combinations (the last axis turns fastest)."""
    axes: dict[str, list[Any]] = {}
    differences: list[Difference] = []


class Circumstances(Strict):
    """What an evaluation may vary: the grid, and how images are corrupted."""

    corruptions: list[str] = list(COMMON)
    """Names, ``common`` for the 15, files of your own beside the study file."""
    severities: list[int] = list(SEVERITIES)
    seed: int = 0
    draws: str = "fast"
    regime: str | None = None
    """None: that of the data."""
    channel_order: str = "rgb"
    warp_truth: bool = False

    @field_validator("corruptions")
    @classmethod
    def _expanded(cls, names: list[str]) -> list[str]:
        found = [one for name in names for one in (COMMON if name == "common" else (name,))]
        for name in found:
            if not is_user_file(name):  # a file of one's own is run when the study is
                lookup("corruption", name, CORRUPTIONS)
        return found

    @model_validator(mode="after")
    def _there(self) -> "Circumstances":
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(
                    f"expected severities among 1, 2, 3, 4, 5, but got {severity}; leave the"
                    " others out"
                )
        return self


class Panel(Strict):
    """One table or one part of a figure."""

    title: str
    metric: Literal["top1", "box_ap", "mask_ap", "miou"]
    runs: list[str] | dict[str, str]
    """Ids, with the label of each where it is not the model's."""

    @property
    def labels(self) -> dict[str, str]:
        """The label of each run by its id; an empty one stands for the model's name."""
        return self.runs if isinstance(self.runs, dict) else dict.fromkeys(self.runs, "")


class Study(Strict):
    """A study file."""

    name: str
    title: str = ""
    source: str | None = Field(None, alias="from")
    """The file, beside this one, whose runs, models, data and protocols this study takes."""
    models: dict[str, str] = {}
    data: dict[str, str] = {}
    """Named datasets as ``FORMAT:PATH``; a relative path is looked up in the data root."""
    protocols: dict[str, Circumstances] = {}
    """The first one is the default."""
    runs: list[Block] = []
    layout: Literal["groups", "before_after", "bars"] = "bars"
    """How panels are shown: as Tables 1 and 2, as Tables 4 and 5, or as the figures of the paper.
    """
    bars: list[Literal["drop", "clean", "corrupted"]] = ["drop", "clean"]
    panels: list[Panel] = []
    seed: int = 0
    scenes: dict[str, int] = {}
    """How many scenes and crops are drawn, where it differs from the defaults of ``SceneCounts``.
    """
    source_set: dict[str, int] = {}
    """How many images of the source set are drawn, where it differs from the defaults of
    ``write_source_set``.
    """

    def circumstances(self, protocol: str | None = None) -> Circumstances:
        """The protocol of that name, or the first one."""
        named = self.protocols or {"default": Circumstances()}
        return lookup("protocol", protocol or next(iter(named)), named)

    def selected(self) -> list["StudyRun"]:
        """The runs of this study: those that its panels show, or all of the file."""
        every = {run.id: run for run in expand(self)}
        labels = dict.fromkeys(key for panel in self.panels for key in panel.labels)
        if not labels:
            return list(every.values())
        chosen = {key: lookup("run", key, every) for key in labels}
        makers = {run.made_by for run in chosen.values()}
        return [
            run for key, run in every.items() if key not in chosen and run.folder in makers
        ] + list(chosen.values())


@dataclass(frozen=True)
class StudyRun:
    """One run of a study, before anything is looked up or loaded."""

    id: str
    label: str
    task: TaskName
    backbone: str
    data: str
    transfer: str
    recipe: str
    changes: Mapping[str, Any]
    technique: str
    settings: Mapping[str, Any]
    test_data: str
    images: int | None
    made_by: str = ""
    """The folder of the run that makes the backbone; empty where ``backbone`` says where its
    weights are.
    """
    scale: str = ""
    """``miniature`` where sizes, steps and data stand in for the real ones; empty for the real
    thing.
    """

    @property
    def training_key(self) -> str:
        """Names everything that decides the weights, as far as the study file says it."""
        said = asdict(self)
        for key in ("id", "label", "test_data", "images"):
            del said[key]
        return content_key({**said, "technique": with_content_hash(self.technique)})

    @property
    def folder(self) -> str:
        """The name of the run's folder of weights: the same for every study that has this run."""
        return f"{self._said()}-{self.training_key[:8]}"

    def name(self, circumstances: Circumstances) -> str:
        """The run's name in the store: runs that are evaluated on other data or otherwise are
        others.

        The grid of corruptions and severities is left out: a larger one completes a smaller one.
        """
        how = circumstances.model_dump(exclude={"corruptions", "severities"})
        where = {"test_data": self.test_data, "images": self.images}
        key = content_key({"training": self.training_key, **where, **how})
        return f"{self._said()}-{key[:8]}"

    def _said(self) -> str:
        rest = [display_name(self.technique), self.label if self.made_by else "", self.scale]
        return readable("-".join([self.task, self.backbone, self.transfer, *filter(None, rest)]))


def readable(text: str) -> str:
    """Text as a part of a file's name; what tells two of them apart has to stand beside it."""
    kept = (
        character if (character.isascii() and character.isalnum()) or character in "_." else "-"
        for character in text
    )
    return "-".join(filter(None, "".join(kept).split("-")))


# ---- reading
# ------------------------------------------------------------------------------------------------------------


def shipped() -> dict[str, Path]:
    """The studies that come with the package, by name."""
    return {path.stem: path for path in sorted(STUDIES.glob("*.yaml"))}


def find_study(name: str) -> Path:
    """The path of a study: a file, or the name of one that is shipped."""
    path = Path(name).expanduser()
    # a folder is none: `make demo` leaves one that is called demo
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    return lookup("study", name, shipped())


def read_study(path: Path) -> Study:
    """Read a study file. Raises ``UserError`` naming the place of what is wrong."""
    study = _read(path)
    if study.source is not None:
        if study.runs:
            raise UserError(f"The study {path} has both `from` and `runs`; keep one of them")
        base = _read(path.parent / study.source)
        if base.source is not None:
            raise UserError(
                f"The study {path} is `from` {study.source}, which is `from` {base.source} itself;"
                " name that one"
            )
        given = study.model_dump(exclude_unset=True)
        study = study.model_copy(
            update={
                "models": {**base.models, **study.models},
                "data": {**base.data, **study.data},
                "protocols": study.protocols or base.protocols,
                "runs": base.runs,
                "seed": given.get("seed", base.seed),
                "scenes": given.get("scenes", base.scenes),
            }
        )
    if not study.runs:
        raise UserError(
            f"The study {path} has no runs; write some under `runs`, or take them `from` another"
            " file"
        )
    study.selected()
    return study


def _read(path: Path) -> Study:
    try:
        text = path.read_text(encoding="utf-8")
        return (
            _parsed(text)
            if ".py" not in text
            else Study.model_validate(_with_files(load_yaml(text), path.parent))
        )
    except OSError as error:
        raise UserError(
            f"Cannot read the study {path} ({error.strerror}); check the path"
        ) from None
    except ValidationError as error:
        raise UserError(
            f"The study {path} is wrong {first_fault(error)}; correct it there"
        ) from None
    except (YamlError, UnicodeDecodeError) as error:
        raise UserError(
            f"Expected YAML in the study {path}, but {error}; correct it there"
        ) from None


@lru_cache(maxsize=32)  # the paper's runs are read once for its eight studies
def _parsed(text: str) -> Study:
    return Study.model_validate(load_yaml(text))


def _with_files(content: Any, folder: Path, key: str = "") -> Any:
    """What a study file holds, with files of one's own as they are now, looked for beside it."""
    if isinstance(content, dict):
        return {name: _with_files(value, folder, str(name)) for name, value in content.items()}
    if isinstance(content, list):
        return [_with_files(value, folder, key) for value in content]
    return (
        resolve_user_file(content, folder)
        if key in ("technique", "corruptions") and isinstance(content, str)
        else content
    )


def first_fault(error: ValidationError) -> str:
    """Where a file is wrong and how, in one sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "at its top"
    return f"at {where}: {first['msg'].removeprefix('Value error, ')}".replace("at at", "at")


# ---- axes and differences -> runs
# -----------------------------------------------------------------------------------------


def expand(study: Study) -> list[StudyRun]:
    """All runs of a file, in its order.

    Raises ``UserError`` where a block, an id or a ``run:ID`` cannot be.
    """
    makers: dict[str, StudyRun] = {}
    runs = []
    for number, block in enumerate(study.runs):
        for run in _expand_block(study, block, f"runs.{number}"):
            runs.append(_on_made(run, makers) if run.backbone.startswith(MADE_BY) else run)
            if run.transfer == ROBUSTIFY:
                makers[run.id] = runs[-1]
    for one, other in itertools.combinations(runs, 2):
        if one.id == other.id:
            raise UserError(
                f"The study {study.name} has two runs {one.id!r}; name the runs of each block with"
                " `ids`"
            )
    return runs


def _on_made(run: StudyRun, makers: Mapping[str, StudyRun]) -> StudyRun:
    """A run whose model is ``run:ID``, on the backbone that run makes."""
    maker = lookup(
        "run with transfer robustify before this one", run.backbone.removeprefix(MADE_BY), makers
    )
    return replace(
        run, backbone=parse_spec(maker.backbone)[0], made_by=maker.folder, label=maker.label
    )


def _expand_block(study: Study, block: Block, where: str) -> Iterable[StudyRun]:
    common = block.model_dump(exclude={"ids", "axes", "differences"}, exclude_unset=True)
    for axis, values in block.axes.items():
        lookup(f"axis in {where} of the study {study.name}", axis, Values.model_fields)
        if not values:
            raise UserError(
                f"{where} of the study {study.name} has no values on the axis {axis}; give some, or"
                " leave the axis out"
            )
    combinations = [
        dict(zip(block.axes, values, strict=True))
        for values in itertools.product(*block.axes.values())
    ]
    if block.ids and len(block.ids) != len(combinations):
        raise UserError(
            f"{where} of the study {study.name} has {len(combinations)} runs, but {len(block.ids)}"
            " ids; give as many ids as runs, or none"
        )
    met = [False] * len(block.differences)
    for index, combination in enumerate(combinations):
        said = _merged(common, combination)
        for number, difference in enumerate(block.differences):
            if all(said.get(key) == value for key, value in difference.when.items()):
                met[number] = True
                said = _merged(said, difference.model_dump(exclude={"when"}, exclude_unset=True))
        yield _run(study, said, block.ids[index] if block.ids else _id(combination, said), where)
    if not all(met):
        when = block.differences[met.index(False)].when
        raise UserError(
            f"{where} of the study {study.name} has a difference for {when}, but no run of the"
            " block is so; correct its when"
        )


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The second's values; mappings (settings, changes) key by key."""
    both = {
        key: {**first[key], **value}
        for key, value in second.items()
        if isinstance(value, dict) and key in first
    }
    return {**first, **second, **both}


def _run(study: Study, said: dict[str, Any], name: str, where: str) -> StudyRun:
    try:
        values = Values.model_validate(said)
    except ValidationError as error:
        raise UserError(
            f"Run {name} ({where} of the study {study.name}) is wrong {first_fault(error)}; correct"
            " it there"
        ) from None
    if (
        values.task is None
        or values.model is None
        or values.data is None
        or values.transfer is None
    ):
        lacking = [
            key for key in ("task", "model", "data", "transfer") if getattr(values, key) is None
        ]
        raise UserError(
            f"Run {name} ({where} of the study {study.name}) has no {', '.join(lacking)}; say which"
        )
    return StudyRun(
        id=name,
        label=(
            f"{values.model} {display_name(values.technique or REGULAR)}"
            if values.transfer == ROBUSTIFY
            else values.model
        ),
        task=values.task,
        backbone=study.models.get(values.model, values.model),
        data=values.data,
        transfer=values.transfer,
        recipe=values.recipe or "",
        changes={"seed": study.seed, **values.changes},
        technique=values.technique or "",
        settings=values.settings,
        test_data=values.test_data or values.data,
        images=values.images,
    )


def _id(combination: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """A readable id from what tells the runs of a block apart."""
    first = [str(said[key]) for key in ("task", "model", "transfer") if key in said]
    others = [
        _plain(value)
        for key, value in combination.items()
        if key not in ("task", "model", "transfer")
    ]
    return readable("-".join([*first, *others]))


def _plain(value: Any) -> str:
    return (
        "-".join(f"{key}-{one}" for key, one in value.items())
        if isinstance(value, dict)
        else display_name(str(value))
    )


def union(runs: Iterable[Sequence[StudyRun]]) -> list[StudyRun]:
    """The runs of several studies, each run once, whichever id it has there."""
    found: dict[str, StudyRun] = {}
    for study_runs in runs:
        for run in study_runs:
            found.setdefault(
                content_key({"run": run.training_key, "on": run.test_data, "images": run.images}),
                run,
            )
    return list(found.values())
