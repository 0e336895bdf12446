"""Study files as pydantic models. Nothing here loads a model or opens data."""

import itertools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stillrobust.corruptions import CORRUPTIONS
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, CORRUPTION_SETS, SEVERITIES, Place
from stillrobust.names import lookup, unknown_name_error
from stillrobust.samples import TaskName
from stillrobust.storage.store import RunKind
from stillrobust.user_files import display_name, is_user_file


class StrictModel(BaseModel):
    """A part of a study file. An unknown key is an error that suggests the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_keys(cls, content: Any) -> Any:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        for key in content if isinstance(content, Mapping) else ():
            if key not in names:
                raise unknown_name_error("key", key, names)
        return content


class RunValues(StrictModel):
    """The values of a run. Values that are left out have the defaults of the library."""

    task: TaskName | None = None
    model: str | None = None
    """A name of ``models``, the spec of a backbone, or ``run:ID``: the backbone that the run ``ID``
    of kind ``robustify`` makes.
    """
    data: str | None = None
    """A name of ``data``, ``FORMAT:PATH``, ``scenes`` (generated), or ``source`` (generated, of
    other classes than the scenes).
    """
    test_data: str | None = None
    """The default is ``data``."""
    kind: RunKind = "transfer"
    transfer: str | None = None
    """Required for the kind ``transfer``, and only for it."""
    recipe: str | None = None
    """A name of ``RECIPES``."""
    changes: dict[str, Any] = {}
    """Fields of the recipe that differ."""
    technique: str | None = None
    """The spec of a technique that acts in training. The path of a technique's file is relative to
    the study file.
    """
    method: str | None = None
    """Fine-tuning methods, such as ``lp_ft + ema``."""
    settings: dict[str, Any] = {}
    """Settings of the task that differ from its defaults."""
    images: int | None = None
    """Evaluate on this number of images, evenly spaced over the set; the default is all."""


class RunDifference(RunValues):
    """Values for the runs of a block that have the values in ``when``."""

    when: dict[str, Any]


class RunBlock(RunValues):
    """Runs that differ in their axes only: one for every combination."""

    ids: list[str] = []
    """Names of the runs, in the order of the combinations (the last axis varies fastest)."""
    axes: dict[str, list[Any]] = {}
    differences: list[RunDifference] = []


class StudyProtocol(StrictModel):
    """The cells of every run, and how images are corrupted."""

    corruptions: list[str] = list(COMMON)
    """Names, ``common`` for the 15, or paths of files relative to the study file."""
    severities: list[int] = list(SEVERITIES)
    seed: int = 0
    draws: str = "fast"
    regime: str | None = None
    """The default is the regime of the data."""
    channel_order: str = "rgb"
    warp_truth: bool = False

    @field_validator("corruptions")
    @classmethod
    def _expand_sets(cls, names: list[str]) -> list[str]:
        found = [one for name in names for one in CORRUPTION_SETS.get(name, (name,))]
        for name in found:
            if not is_user_file(name):  # a user's file is only run when the study is
                lookup("corruption", name, CORRUPTIONS)
        return found

    @model_validator(mode="after")
    def _require_severities(self) -> "StudyProtocol":
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(
                    f"expected severities among 1, 2, 3, 4, 5, but got {severity}; leave the"
                    " others out"
                )
        return self

    def cells(self) -> list[Place]:
        """Return (corruption, severity) of every cell, the clean one first.

        Corruptions have their display names, as in the store.
        """
        grid = itertools.product(map(display_name, self.corruptions), self.severities)
        return [CLEAN, *grid]


class StudyPanel(StrictModel):
    """A table, or a part of a figure."""

    title: str
    metric: Literal["top1", "box_ap", "mask_ap", "miou"]
    runs: list[str] | dict[str, str]
    """Ids, optionally with the label of each; the default label is the model's name."""

    @property
    def labels(self) -> dict[str, str]:
        """Id of each run -> its label; an empty one stands for the model's name."""
        return self.runs if isinstance(self.runs, dict) else dict.fromkeys(self.runs, "")


class Study(StrictModel):
    """A study file."""

    name: str
    title: str = ""
    source: str | None = Field(None, alias="from")
    """A file in the same folder, whose runs, models, data and protocols this study uses."""
    models: dict[str, str] = {}
    data: dict[str, str] = {}
    """Name -> ``FORMAT:PATH``; a relative path starts at the data root."""
    protocols: dict[str, StudyProtocol] = {}
    """Name -> protocol; the first one is the default."""
    runs: list[RunBlock] = []
    layout: Literal["groups", "before_after", "bars"] = "bars"
    """Layout of the panels: that of Tables 1 and 2, Tables 4 and 5, or the paper's figures."""
    bars: list[Literal["drop", "clean", "corrupted"]] = ["drop", "clean"]
    panels: list[StudyPanel] = []
    claims: str | None = None
    """A file of claims about the runs, in the same folder; the report judges them."""
    seed: int = 0
    scenes: dict[str, int] = {}
    """Numbers of generated scenes and crops that differ from the defaults of ``SceneCounts``."""
    source_set: dict[str, int] = {}
    """Arguments of ``write_source_set`` that differ from its defaults."""

    def protocol(self, name: str | None = None) -> StudyProtocol:
        """Return a protocol.

        Args:
            name: Its name; the default is the first one.

        Returns:
            The protocol.

        Raises:
            UserError: If there is none of that name.
        """
        named = self.protocols or {"default": StudyProtocol()}
        return lookup("protocol", name or next(iter(named)), named)


def first_error(error: ValidationError) -> str:
    """Describe the first error of a validation in one sentence.

    Args:
        error: The error.

    Returns:
        The position in the file and what is wrong there.
    """
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "at its top"
    return f"at {where}: {first['msg'].removeprefix('Value error, ')}".replace("at at", "at")
