"""Study files -> runs: the combinations of axes, with their differences.

The name of a run is a hash of its values, not of the study that needs it: the same run in two
studies has the same name, folder and numbers.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import ValidationError

from stillrobust.errors import UserError
from stillrobust.names import lookup, parse_spec
from stillrobust.samples import TaskName
from stillrobust.storage.files import content_key
from stillrobust.storage.store import RunKind, Transfer
from stillrobust.study.schema import RunBlock, RunValues, Study, StudyProtocol, first_error
from stillrobust.user_files import display_name, with_content_hash

PREFIX = "run:"
"""Begins a model that is the backbone of another run."""
MOST_RUNS = 10_000  # of a block; the paper has 78
REGULAR = "regular"
"""Label of a backbone that was trained without a technique."""


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, as the file describes it."""

    id: str
    label: str
    task: TaskName
    backbone: str
    data: str
    kind: RunKind
    transfer: Transfer | None
    recipe: str
    changes: Mapping[str, Any]
    technique: str
    settings: Mapping[str, Any]
    test_data: str
    images: int | None
    method: str = ""
    backbone_run: str = ""
    """The folder of the run that makes the backbone; empty if ``backbone`` names its weights."""
    scale: str = ""
    """``miniature`` for a run with substitutes for data, weights and steps; otherwise empty."""

    @property
    def setting(self) -> str:
        """The transfer; for other kinds of runs, the kind."""
        return self.transfer or self.kind

    @property
    def training_key(self) -> str:
        """A hash of everything in the study file that decides the weights."""
        values = asdict(self)
        for key in ("id", "label", "test_data", "images"):
            del values[key]
        return content_key({**values, "technique": with_content_hash(self.technique)})

    @property
    def folder(self) -> str:
        """The name of the run's folder of weights, the same in every study with this run."""
        return f"{self._slug()}-{self.training_key[:8]}"

    def name(self, protocol: StudyProtocol) -> str:
        """Return the run's name in the store.

        It depends on the test data and the protocol, but not on the cells: a larger grid completes
        a smaller one.

        Args:
            protocol: How the run is evaluated.

        Returns:
            A readable name that ends in a hash.
        """
        values = protocol.model_dump(exclude={"corruptions", "severities"})
        test = {"test_data": self.test_data, "images": self.images}
        key = content_key({"training": self.training_key, **test, **values})
        return f"{self._slug()}-{key[:8]}"

    def _slug(self) -> str:
        rest = [
            display_name(self.technique),
            self.method,
            self.label if self.backbone_run else "",
            self.scale,
        ]
        return readable("-".join([self.task, self.backbone, self.setting, *filter(None, rest)]))


def readable(text: str) -> str:
    """Return text as part of a file name: letters, digits, ``_``, ``.`` and ``-``.

    Args:
        text: Any text. Two texts may become equal, so add what tells them apart.

    Returns:
        The text with each run of other characters replaced by ``-``.
    """
    kept = (
        character if (character.isascii() and character.isalnum()) or character in "_." else "-"
        for character in text
    )
    return "-".join(filter(None, "".join(kept).split("-")))


def selected_runs(study: Study) -> list[StudyRun]:
    """Return the runs that a study needs.

    Args:
        study: The file.

    Returns:
        The runs of its panels and the runs that make their backbones; all runs if it has no panels.

    Raises:
        UserError: If a run of the file or a panel is wrong.
    """
    every = {run.id: run for run in expand(study)}
    ids = dict.fromkeys(key for panel in study.panels for key in panel.labels)
    if not ids:
        return list(every.values())
    chosen = {key: lookup("run", key, every) for key in ids}
    makers = {run.backbone_run for run in chosen.values()}
    return [run for key, run in every.items() if key not in chosen and run.folder in makers] + list(
        chosen.values()
    )


def expand(study: Study) -> list[StudyRun]:
    """Return all runs of a study file.

    Args:
        study: The file.

    Returns:
        The runs in the order of the file.

    Raises:
        UserError: If a block, an id or a ``run:ID`` is wrong.
    """
    makers: dict[str, StudyRun] = {}
    runs = []
    for number, block in enumerate(study.runs):
        for run in _expand_block(study, block, f"runs.{number}"):
            runs.append(_with_backbone_run(run, makers) if run.backbone.startswith(PREFIX) else run)
            if run.kind == "robustify":
                makers[run.id] = runs[-1]
    for name, times in Counter(run.id for run in runs).items():
        if times > 1:
            raise UserError(
                f"The study {study.name} has two runs {name!r}; name the runs of each block with"
                " `ids`"
            )
    return runs


def _with_backbone_run(run: StudyRun, makers: Mapping[str, StudyRun]) -> StudyRun:
    """A run whose model is ``run:ID``, with the backbone that the run ``ID`` makes."""
    maker = lookup(
        "run of kind robustify before this one", run.backbone.removeprefix(PREFIX), makers
    )
    architecture, _ = parse_spec(maker.backbone)
    return replace(run, backbone=architecture, backbone_run=maker.folder, label=maker.label)


def _expand_block(study: Study, block: RunBlock, where: str) -> Iterable[StudyRun]:
    common = block.model_dump(exclude={"ids", "axes", "differences"}, exclude_unset=True)
    for axis, choices in block.axes.items():
        lookup(f"axis in {where} of the study {study.name}", axis, RunValues.model_fields)
        if not choices:
            raise UserError(
                f"{where} of the study {study.name} has no values on the axis {axis}; give some, or"
                " leave the axis out"
            )
    count = math.prod(map(len, block.axes.values()))
    if count > MOST_RUNS:
        raise UserError(
            f"Expected at most {MOST_RUNS:,} runs in {where} of the study {study.name}, but its"
            f" axes have {count:,} combinations; leave values out, or split the study"
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
    used = [False] * len(block.differences)
    for index, combination in enumerate(combinations):
        values = _merge(common, combination)
        for number, difference in enumerate(block.differences):
            if all(values.get(key) == value for key, value in difference.when.items()):
                used[number] = True
                values = _merge(values, difference.model_dump(exclude={"when"}, exclude_unset=True))
        name = block.ids[index] if block.ids else _default_id(combination, values)
        yield _study_run(study, values, name, where)
    if not all(used):
        when = block.differences[used.index(False)].when
        raise UserError(
            f"{where} of the study {study.name} has a difference for {when}, but no run of the"
            " block has these values; correct its when"
        )


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The second's values; mappings (settings, changes) key by key."""
    both = {
        key: {**first[key], **value}
        for key, value in second.items()
        if isinstance(value, dict) and key in first
    }
    return {**first, **second, **both}


def _study_run(study: Study, given: dict[str, Any], name: str, where: str) -> StudyRun:
    try:
        values = RunValues.model_validate(given)
    except ValidationError as error:
        raise UserError(
            f"Run {name} ({where} of the study {study.name}) is wrong {first_error(error)}; correct"
            " it there"
        ) from None
    required = ("task", "model", "data", *(["transfer"] if values.kind == "transfer" else []))
    lacking = [key for key in required if getattr(values, key) is None]
    if lacking:
        raise UserError(
            f"Run {name} ({where} of the study {study.name}) has no {', '.join(lacking)}; add"
            " values for these keys"
        )
    if values.kind != "transfer" and values.transfer is not None:
        raise UserError(
            f"Run {name} ({where} of the study {study.name}) has kind {values.kind} and transfer"
            f" {values.transfer}; leave the transfer out"
        )
    assert values.task
    assert values.model
    assert values.data
    return StudyRun(
        id=name,
        label=(
            f"{values.model} {display_name(values.technique or REGULAR)}"
            if values.kind == "robustify"
            else values.model
        ),
        task=values.task,
        backbone=study.models.get(values.model, values.model),
        data=values.data,
        kind=values.kind,
        transfer=values.transfer,  # type: ignore[arg-type]  # checked with the recipe
        recipe=values.recipe or "",
        changes={"seed": study.seed, **values.changes},
        technique=values.technique or "",
        settings=values.settings,
        test_data=values.test_data or values.data,
        images=values.images,
        method=values.method or "",
    )


def _default_id(combination: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """A readable id from the values that differ within a block."""
    first = [str(values[key]) for key in ("task", "model", "kind", "transfer") if key in values]
    others = [
        _as_text(value)
        for key, value in combination.items()
        if key not in ("task", "model", "kind", "transfer")
    ]
    return readable("-".join([*first, *others]))


def _as_text(value: Any) -> str:
    return (
        "-".join(f"{key}-{one}" for key, one in value.items())
        if isinstance(value, dict)
        else display_name(str(value))
    )


def union(runs: Iterable[Sequence[StudyRun]]) -> list[StudyRun]:
    """Return the runs of several studies, each run once.

    Args:
        runs: The runs of each study. The same run may have another id in each.

    Returns:
        The runs, with the id of the first study that has them.
    """
    found: dict[str, StudyRun] = {}
    for study_runs in runs:
        for run in study_runs:
            found.setdefault(
                content_key({"run": run.training_key, "on": run.test_data, "images": run.images}),
                run,
            )
    return list(found.values())
