"""The plan of a training, and the identity that decides its weights."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillrobust.backbones import ResolvedBackbone
from stillrobust.errors import UserError
from stillrobust.finetuning import Methods, build_methods
from stillrobust.names import lookup
from stillrobust.robustify import build_technique
from stillrobust.samples import DatasetInfo
from stillrobust.storage.store import RunKind, Transfer
from stillrobust.tasks import Task, make_task
from stillrobust.tasks.recipes import Recipe
from stillrobust.training.transfers import TRANSFERS
from stillrobust.user_files import display_name, resolve_user_file, with_content_hash

TRAINING_VERSION = 1  # raised when a change of the loop changes trained weights
IN_TRANSFER_VERSION = 1  # raised when a technique acts differently in a transfer

EXECUTION_FIELDS = {"checkpoint_seconds", "workers", "accelerator", "devices", "nodes"}
NOT_IN_IDENTITY = EXECUTION_FIELDS | {"settings", "source"}
"""Fields of a recipe that do not change the weights; settings have their own entry."""


@dataclass(frozen=True)
class Plan:
    """One training: what is trained on what, and how."""

    task: str
    backbone: str
    transfer: Transfer | None
    """``None`` unless ``kind`` is ``transfer``."""
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of the task that differ from the recipe's and from the task's defaults."""
    technique: str = ""
    """Technique that acts on the images in training, such as ``prime(geometry=False)``; empty for
    none.
    """
    method: str = ""
    """Fine-tuning methods, such as ``lp_ft + ema``; empty for plain fine-tuning."""
    kind: RunKind = "transfer"
    """``upstream`` trains nothing; ``robustify`` trains the backbone with its own classifier."""

    def __post_init__(self) -> None:
        if (self.kind == "transfer") != (self.transfer is not None):
            raise UserError(
                "Expected a transfer for a run of kind transfer, and none for other kinds, but"
                f" got transfer {self.transfer} for kind {self.kind}; correct one of them"
            )
        # a training uses one content of a user's file
        object.__setattr__(self, "technique", resolve_user_file(self.technique))

    def make_methods(self) -> Methods:
        """The fine-tuning methods.

        Raises:
            UserError: If the spec is wrong, or a method cannot act in this run.
        """
        methods = build_methods(self.method)
        methods.require_fit(self.kind, self.transfer)
        return methods

    def make_task(self) -> Task:
        """The task with the recipe's settings, overridden by the plan's own."""
        return make_task(self.task, {**self.recipe.settings, **self.settings})


def identity(plan: Plan, backbone: ResolvedBackbone, info: DatasetInfo) -> dict[str, Any]:
    """Everything that decides the weights of a run, as plain data.

    Args:
        plan: The training.
        backbone: The resolved ``plan.backbone``.
        info: Description of the training data.

    Raises:
        UserError: If the plan names an unknown transfer, technique or setting.
    """
    recipe = {
        key: value
        for key, value in dataclasses.asdict(plan.recipe).items()
        if key not in NOT_IN_IDENTITY
    }
    if plan.transfer is not None:
        lookup("transfer", plan.transfer, TRANSFERS)
    trains = plan.kind != "upstream"
    technique = build_technique(plan.technique).spec if plan.technique else ""
    return {
        "task": plan.task,
        "settings": dataclasses.asdict(plan.make_task()),  # type: ignore[call-overload]
        "backbone": backbone.spec if backbone.kind == "random" else backbone.architecture,
        "upstream_weights": backbone.digest,
        "preprocessing": backbone.preprocessing,
        "kind": plan.kind,
        "transfer": plan.transfer,
        "technique": display_name(technique),
        "method": plan.make_methods().spec,
        **(
            {"in_transfer_version": IN_TRANSFER_VERSION}
            if technique and plan.kind != "robustify"
            else {}
        ),
        **(
            {"technique_files": with_content_hash(technique)}
            if with_content_hash(technique) != technique
            else {}
        ),
        "training_data": info.fingerprint if trains else "none",
        "classes": list(info.classes),
        "has_masks": info.has_masks,
        "recipe": recipe if trains else {"seed": plan.recipe.seed},
        "training_version": TRAINING_VERSION,
    }
