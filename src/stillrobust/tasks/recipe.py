"""The fields of a recipe: how a run is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from stillrobust.backbones.architectures import LayerUnit
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.tasks.field_types import type_mismatch

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "step", "poly", "one_cycle", "constant"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
# steps; five times the longest published recipe, so that typing errors are noticed
MAX_STEPS = 10_000_000

# lowest values of numbers: 1 for these, 0 for the others, none for the seed
AT_LEAST_ONE = ("batch_size", "steps", "devices", "nodes")
BELOW_ONE = ("momentum", "drop_path")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
# fields that may be None, and their types otherwise
OPTIONAL = {"scale_lr": bool, "clip": float, "drop_path": float}


@dataclass(frozen=True)
class Recipe:
    """How a run is trained. The defaults are for short trainings on small data (the demo's)."""

    steps: int = 1000
    epochs: float = 0.0
    """Passes over the training data; if above 0, they determine the steps."""
    batch_size: int = 16
    """Images a step, over all processes."""
    reference_batch: int = 0
    """Batch size that ``lr`` was published for; 0 for any."""
    scale_lr: bool | None = None
    """Whether to scale ``lr`` linearly (Goyal et al. 2017); required if ``batch_size`` is not
    ``reference_batch``.
    """
    optimizer: Optimizer = "adamw"
    lr: float = 2e-3
    backbone_lr_factor: float = 0.2
    """The backbone's learning rate in full-network transfer, relative to the head's."""
    layer_decay: float = 1.0
    """Ratio of the learning rates of neighbouring layers of the backbone, which fall from the head
    to the first layer; 1 for one rate.
    """
    layer_unit: LayerUnit = "block"
    """What a layer is: ``block`` or ``stage`` (see ``layers_of``)."""
    weight_decay: float = 0.02
    no_decay: tuple[str, ...] = ()
    """Parameters whose names contain one of these do not decay; ``norm`` includes every
    LayerNorm, and ``vectors`` every parameter of one dimension.
    """
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of AdamW."""
    schedule: Schedule = "cosine"
    warmup: float = 0.15
    """Steps in which the rate rises linearly; below 1, a fraction of all steps."""
    warmup_start: float = 1e-3
    """First rate, relative to the schedule's (mmdetection's ``warmup_ratio``)."""
    milestones: tuple[float, ...] = (2 / 3, 11 / 12)
    """``step``: fractions of the training at which the rate is divided by ten."""
    power: float = 0.9
    """Exponent of ``poly``."""
    min_lr: float = 0.0
    """Last rate of ``poly`` and ``cosine``."""
    rise: float = 0.3
    """``one_cycle``: fraction of the steps in which the rate rises from lr / 25; the last rate is
    lr / 250,000.
    """
    clip: float | None = 5.0
    """Norm at which gradients are clipped, for new heads on small batches; published recipes do
    not clip.
    """
    norm_eval: bool = True
    """Whether the backbone's BatchNorm keeps its ImageNet statistics, as usual in detection; its
    affine parameters still train.
    """
    frozen: tuple[str, ...] = ()
    """Modules of the backbone that are frozen in full-network transfer (mmdetection's
    ``frozen_stages``).
    """
    drop_path: float | None = None
    """Stochastic depth of the backbone's last block, falling linearly to 0 at the first; ``None``
    for the architecture's own.
    """
    precision: Precision = "32-true"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the task; those of a plan override them."""
    seed: int = 0
    source: str = ""
    # how the training is run, without effect on the weights:
    checkpoint_seconds: float = 20.0
    workers: int = 0
    """Loader processes of each training process."""
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(
                self, one.name, _converted(one.name, getattr(self, one.name), one.default, one.type)
            )
        for name, kind in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("precision", Precision),
            ("layer_unit", LayerUnit),
        ):
            lookup(name, getattr(self, name), {value: value for value in get_args(kind)})
        lookup("accelerator", self.accelerator, dict.fromkeys(ACCELERATORS))
        for name, value in vars(self).items():
            low = 1 if name in AT_LEAST_ONE else 0
            if isinstance(value, int | float) and name != "seed" and value < low:
                raise UserError(
                    f"Expected {name} of at least {low} in a recipe, but got {value}; raise it"
                )
        for name in BELOW_ONE:
            if getattr(self, name) is not None and getattr(self, name) >= 1:
                raise UserError(
                    f"Expected {name} below 1 in a recipe, but got {getattr(self, name)}; lower it"
                )
        if not 0 < self.layer_decay <= 1:
            raise UserError(
                "Expected layer_decay above 0 and at most 1 in a recipe, but got"
                f" {self.layer_decay}; 1 is for one rate"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(
                f"Expected two betas from 0 to below 1 in a recipe, but got {self.betas}; write"
                " them as [0.9, 0.999]"
            )
        if self.nesterov and not self.momentum:
            raise UserError(
                "Expected momentum above 0 beside nesterov: true, but got 0; set momentum: 0.9 or"
                " nesterov: false"
            )
        if self.steps > MAX_STEPS:
            raise UserError(
                f"Expected at most {MAX_STEPS} steps in a recipe, but got {self.steps}; lower"
                " epochs or steps"
            )
        if self.schedule == "one_cycle" and self.warmup:
            raise UserError(
                "The one_cycle schedule warms up by itself; set warmup: 0, and rise for the length"
                " of its rise"
            )
        if (
            self.reference_batch
            and self.batch_size != self.reference_batch
            and self.scale_lr is None
        ):
            scaled = self.lr * self.batch_size / self.reference_batch
            raise UserError(
                f"The recipe's learning rate {self.lr:g} is for {self.reference_batch} images a"
                f" step, but batch_size is {self.batch_size}; set scale_lr: true to train at"
                f" {scaled:g}, or scale_lr: false to keep {self.lr:g}"
            )

    def rate_factor(self) -> float:
        """Factor of the learning rates; 1 without ``scale_lr``."""
        return (
            self.batch_size / self.reference_batch
            if self.scale_lr and self.reference_batch
            else 1.0
        )

    def total_steps(self, images: int) -> int:
        """Steps of a training on a number of images."""
        return (
            max(1, -(-round(self.epochs * images) // self.batch_size))
            if self.epochs
            else self.steps
        )


def _converted(name: str, value: Any, default: Any, declared: Any) -> Any:
    """The value with lists as tuples, and with integers as floats for a float field."""
    value = tuple(value) if isinstance(value, list) else value
    if value is None and name in OPTIONAL:
        return None
    kind: Any = OPTIONAL.get(name, Mapping if name == "settings" else type(default))
    fits = isinstance(value, (float, int) if kind is float else kind) and (
        kind is bool or not isinstance(value, bool)
    )
    if not fits:
        raise UserError(
            f"Expected {kind.__name__} for {name} in a recipe, but got {value!r}; write it so"
            " (1.0e-4, not 1e-4, in YAML)"
        )
    if kind in (float, tuple) and (expected := type_mismatch(value, declared)):
        raise UserError(
            f"Expected {name} of a recipe as {expected}, but got {value!r}; write it so"
        )
    return float(value) if kind is float else value
