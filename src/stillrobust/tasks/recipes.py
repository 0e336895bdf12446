"""Recipes as data: how each task of the paper is trained, every number with its source.

docs/reference/recipes.md is their table. If the paper's text and its released code differ, both are
recipes.
In sources, ``mmdetection`` stands for open-mmlab/mmdetection 2.x (configs/_base_),
``mmsegmentation`` for open-mmlab/mmsegmentation (the same), ``Swin`` for
SwinTransformer/Swin-Transformer-{Object-Detection,Semantic-Segmentation}, ``released`` for
runopti/RobustDownstreamTransfer at a67aae8f, the paper's own code.
"""

from dataclasses import fields, replace
from typing import Any

from stillrobust.names import lookup, unknown_name_error
from stillrobust.tasks.architecture_recipes import ARCHITECTURE_RECIPES, SWIN_CROPS
from stillrobust.tasks.recipe import Recipe

__all__ = ["FIGURE_5_RATES", "RECIPES", "Recipe", "recipe_of"]

# ---- COCO

# mmdetection schedules/schedule_{1x,2x}.py; Swin *_3x: epochs, and where the rate is divided by
# ten.
COCO_EPOCHS = {"1x": (12, (8, 11)), "2x": (24, (16, 22)), "3x": (36, (27, 33))}

# Swin's configs: relative_position_bias_table and norm are the two that Swin has;
# absolute_pos_embed is off by default.
SWIN_NO_DECAY = ("absolute_pos_embed", "relative_position_bias_table", "norm")


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
    **ARCHITECTURE_RECIPES,
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
