"""Recipes as data: how each task of the paper is trained, every number with its source.

docs/reference/recipes.md is their table. If the paper's text and its released code differ, both are
recipes.
In sources, ``mmdetection`` stands for open-mmlab/mmdetection 2.x (configs/_base_),
``mmsegmentation`` for open-mmlab/mmsegmentation (the same), ``Swin`` for
SwinTransformer/Swin-Transformer-{Object-Detection,Semantic-Segmentation}, ``released`` for
runopti/RobustDownstreamTransfer at a67aae8f, the paper's own code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from stillrobust.errors import UserError
from stillrobust.names import lookup, unknown_name_error
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
    weight_decay: float = 0.02
    no_decay: tuple[str, ...] = ()
    """Parameters whose names contain one of these do not decay; ``norm`` includes every
    LayerNorm.
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


# ---- COCO

# mmdetection schedules/schedule_{1x,2x}.py; Swin *_3x: epochs, and where the rate is divided by
# ten.
COCO_EPOCHS = {"1x": (12, (8, 11)), "2x": (24, (16, 22)), "3x": (36, (27, 33))}

# Swin's configs: relative_position_bias_table and norm are the two that Swin has;
# absolute_pos_embed is off by default.
SWIN_NO_DECAY = ("absolute_pos_embed", "relative_position_bias_table", "norm")

# Swin configs/swin/mask_rcnn_swin_*_ms-crop: short sides 480..800 by 32, or a crop between two
# resizes.
SWIN_CROPS = {
    "train_sizes": tuple(range(480, 801, 32)),
    "crop_sizes": (400, 500, 600),
    "crop_range": (384, 600),
}


def _coco(length: str, **differences: Any) -> Recipe:
    epochs, drops = COCO_EPOCHS[length]
    return Recipe(
        epochs=epochs,
        schedule="step",
        milestones=tuple(drop / epochs for drop in drops),
        warmup=500,
        warmup_start=1e-3,
        backbone_lr_factor=1.0,
        clip=None,
        **differences,
    )


def _coco_r50(length: str, lr: float, batch_size: int, source: str) -> Recipe:
    """mmdetection's Mask R-CNN R50-FPN: SGD, stem, first stage and BatchNorm statistics frozen."""
    return _coco(
        length,
        batch_size=batch_size,
        reference_batch=batch_size,
        optimizer="sgd",
        lr=lr,
        momentum=0.9,
        weight_decay=1e-4,
        norm_eval=True,
        frozen=("conv1", "bn1", "layer1"),  # frozen_stages=1
        source=source,
    )


def _coco_swin(length: str, drop_path: float, source: str) -> Recipe:
    """Swin's Mask R-CNN: AdamW, half precision, random scales and crops."""
    return _coco(
        length,
        batch_size=16,
        reference_batch=16,
        optimizer="adamw",
        lr=1e-4,
        weight_decay=0.05,
        no_decay=SWIN_NO_DECAY,
        drop_path=drop_path,
        precision="16-mixed",
        settings=SWIN_CROPS,
        source=source,
    )


# ---- ADE20K


def _ade20k_r50(steps: int, source: str) -> Recipe:
    """mmsegmentation's upernet_r50_512x512 with schedule_80k or _160k: nothing is frozen."""
    return Recipe(
        steps=steps,
        batch_size=16,  # 4 images on 4 GPUs
        reference_batch=16,
        optimizer="sgd",
        lr=0.01,
        backbone_lr_factor=1.0,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="poly",
        power=0.9,
        min_lr=1e-4,
        warmup=0,
        clip=None,
        norm_eval=False,
        source=source,
    )


def _ade20k_swin(steps: int, source: str) -> Recipe:
    """Swin's upernet_swin_*_512x512."""
    return Recipe(
        steps=steps,
        batch_size=16,  # 2 images on 8 GPUs
        reference_batch=16,
        optimizer="adamw",
        lr=6e-5,
        backbone_lr_factor=1.0,
        weight_decay=0.01,
        no_decay=SWIN_NO_DECAY,
        schedule="poly",
        power=1.0,
        min_lr=0.0,
        warmup=1500,
        warmup_start=1e-6,
        clip=None,
        drop_path=0.3,
        norm_eval=False,
        source=source,
    )


# ---- classification

# MadryLab/robustness datasets.CIFAR; Salman et al. normalize by these inside the model.
CIFAR_NORMALIZATION = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}


def _cifar10(step_epochs: int, source: str) -> Recipe:
    """Salman et al. 2020's transfer to CIFAR-10: 150 epochs, a tenth every ``step_epochs``."""
    return Recipe(
        epochs=150,
        batch_size=64,
        reference_batch=64,
        optimizer="sgd",
        lr=0.01,
        backbone_lr_factor=1.0,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step",
        milestones=tuple(epoch / 150 for epoch in range(step_epochs, 150, step_epochs)),
        warmup=0,
        clip=None,
        norm_eval=False,
        settings=CIFAR_NORMALIZATION,
        source=source,
    )


# ---- upstream: from the official codes that the techniques' cards name

TORCHVISION = "resnet50(weights='regular')"


def _upstream(
    batch_size: int, lr: float, weight_decay: float, source: str, **differences: Any
) -> Recipe:
    """Upstream training on ImageNet: SGD with momentum 0.9, one rate, no clipping."""
    return Recipe(
        batch_size=batch_size,
        reference_batch=batch_size,
        optimizer="sgd",
        lr=lr,
        backbone_lr_factor=1.0,
        momentum=0.9,
        weight_decay=weight_decay,
        clip=None,
        norm_eval=False,
        source=source,
        **{"warmup": 0, **differences},
    )


def _steps(epochs: int, every: int) -> dict[str, Any]:
    """Divide the rate by ten every so many epochs."""
    return {
        "epochs": epochs,
        "schedule": "step",
        "milestones": tuple(epoch / epochs for epoch in range(every, epochs, every)),
    }


RECIPES: dict[str, Recipe] = {
    "small": Recipe(source="ours: the demo's"),
    "coco_r50_1x": _coco_r50("1x", 0.02, 16, "mmdetection mask_rcnn_r50_fpn_1x_coco"),
    "coco_r50_2x": _coco_r50(
        "2x", 0.04, 32, "paper sec. 3: lr 0.04; released schedule_2x_lr0.04; 32 images inferred"
    ),
    "coco_r50_2x_lr0.02": _coco_r50(
        "2x", 0.02, 16, "released: mask_rcnn_r50_fpn_2x_coco, linked for Regular, full network"
    ),
    "coco_swin_t_1x": _coco_swin("1x", 0.1, "Swin mask_rcnn_swin_tiny 1x"),
    "coco_swin_t_2x": _coco_swin(
        "2x", 0.2, "released mask_rcnn_swin-t-p4-w7_fpn_fp16_ms-crop-2x_coco"
    ),
    "coco_swin_3x": _coco_swin("3x", 0.2, "Swin mask_rcnn_swin_{tiny,small} 3x"),
    "coco_swin_b_3x": _coco_swin(
        "3x", 0.3, "Swin cascade_mask_rcnn_swin_base 3x, for Mask R-CNN: there is no published one"
    ),
    "ade20k_r50_80k": _ade20k_r50(
        80_000, "mmsegmentation upernet_r50_512x512_80k_ade20k; released"
    ),
    "ade20k_r50_160k": _ade20k_r50(160_000, "mmsegmentation upernet_r50_512x512_160k_ade20k"),
    "ade20k_swin_t_80k": _ade20k_swin(80_000, "released upernet_swin_tiny 80k (Swin trains 160k)"),
    "ade20k_swin_160k": _ade20k_swin(160_000, "Swin upernet_swin_{tiny,small,base} 160k"),
    "cifar10": _cifar10(
        50,
        "paper sec. 3: batch 64, lr 0.01, divided by 10 every 50 epochs; 150 epochs from Salman et"
        " al. 2020",
    ),
    "cifar10_step30": _cifar10(30, "released README: step-lr 30"),
    "imagenet": Recipe(source="torchvision references: shorter side 256, centre 224, bilinear"),
    # Upstream, each for one technique or for those that its source names.
    "imagenet_augmix": _upstream(
        256, 0.1, 1e-4, "google-research/augmix imagenet.py: from random weights", **_steps(90, 30)
    ),
    "imagenet_augmix_180": _upstream(
        256,
        0.1,
        1e-4,
        "augmix issue 3, of the published checkpoint: fill=128; width=5 in easyrobust's"
        " reproduction",
        epochs=180,
        schedule="cosine",
        nesterov=True,
    ),
    "imagenet_deepaugment": _upstream(
        1024,
        0.1,
        1e-4,
        f"hendrycks/imagenet-r DeepAugment/train.py: from {TORCHVISION}, batch 1024 by its default",
        epochs=30,
        schedule="cosine",
        min_lr=1e-6,
        nesterov=True,
    ),
    "imagenet_deepaugment_augmix": _upstream(
        256,
        0.1,
        1e-4,
        f"imagenet-r issue 1: AugMix's script for 30 epochs, from {TORCHVISION}, fill=128; batch"
        " inferred",
        epochs=30,
        schedule="cosine",
        nesterov=True,
    ),
    "imagenet_ant": _upstream(
        70,
        1e-3,
        0.0,
        f"bethgelab/game-of-noise: from {TORCHVISION}; for ant, gaussian and speckle",
        **_steps(120, 60),
    ),
    "imagenet_prime": _upstream(
        512,
        0.02,
        1e-4,
        f"amodas/PRIME-augmentations config/imagenet_cfg.py: from {TORCHVISION}, 256 images on each"
        " of 2 GPUs",
        epochs=100,
        schedule="one_cycle",
        rise=0.1,
        nesterov=True,
    ),
    "imagenet_l2": _upstream(
        512,
        0.1,
        1e-4,
        "Salman et al. 2020, robustness issue 76: from random weights",
        **_steps(90, 30),
    ),
    "source_small": Recipe(
        steps=1500,
        batch_size=64,
        lr=2e-3,
        backbone_lr_factor=1.0,
        weight_decay=0.05,
        norm_eval=False,
        settings={"resize": 64, "crop": 64, "crop_scale": (0.5, 1.0)},
        source="ours: the embedded source set, small backbones from random weights",
    ),
}

# Figure 5: the learning rates of a PRIME backbone in each task, from the names of released configs
FIGURE_5_RATES: dict[str, tuple[float, ...]] = {
    "coco_r50_2x": (0.04, 0.02, 0.01),
    "ade20k_r50_80k": (0.01, 0.005, 0.0025),
}


def recipe_of(name: str = "small", **differences: Any) -> Recipe:
    """Get a recipe, with some fields changed.

    Args:
        name: A key of ``RECIPES``.
        **differences: Fields to change. ``steps`` alone also sets ``epochs`` to 0.

    Raises:
        UserError: If a name is unknown, or a value is not valid.
    """
    recipe = lookup("recipe", name, RECIPES)
    known = {one.name for one in fields(Recipe)}
    for key in differences:
        if key not in known:
            raise unknown_name_error("field of a recipe", key, known)
    if "steps" in differences and "epochs" not in differences:
        differences["epochs"] = 0.0
    return replace(recipe, **differences)
