"""Published recipes of plain ViTs and ConvNeXt, as data.

In sources, ``ViTDet`` stands for facebookresearch/detectron2 projects/ViTDet, ``MAE`` for
open-mmlab/mmsegmentation configs/mae, ``ConvNeXt`` for facebookresearch/ConvNeXt. Layer decay is
explained in ``stillrobust.backbones.layer_decay``.
"""

from typing import Any

from stillrobust.tasks.recipe import Recipe

# Swin configs/swin/mask_rcnn_swin_*_ms-crop: short sides 480..800 by 32, or a crop between two
# resizes. ConvNeXt takes the same.
SWIN_CROPS = {
    "train_sizes": tuple(range(480, 801, 32)),
    "crop_sizes": (400, 500, 600),
    "crop_range": (384, 600),
}
# OpenMMLab's LearningRateDecayOptimizerConstructor: no decay of biases, norms, tokens and positions
NO_DECAY = ("vectors", "pos_embed", "token")
# detectron2: no decay of norms and positions. ViT-H decays both.
VITDET_NO_DECAY = ("norm", "pos_embed")
# ViTDet: large-scale jitter at 1024 × 1024, and windows of 14 patches but in four blocks
VITDET_SETTINGS = {"image_size": (1024, 1024), "scale_jitter": (0.1, 2.0), "window": 14}


def _vitdet(
    size: str,
    epochs: int,
    layer_decay: float,
    drop_path: float,
    no_decay: tuple[str, ...] = VITDET_NO_DECAY,
) -> Recipe:
    """ViTDet's Mask R-CNN: 100 epochs are 184,375 steps, with tenths at 163,889 and 177,546."""
    return Recipe(
        epochs=epochs,
        batch_size=64,
        reference_batch=64,
        optimizer="adamw",
        lr=1e-4,
        backbone_lr_factor=1.0,
        layer_decay=layer_decay,
        weight_decay=0.1,
        no_decay=no_decay,
        schedule="step",
        milestones=(163_889 / 184_375, 177_546 / 184_375),
        warmup=250,
        warmup_start=1e-3,
        clip=None,
        norm_eval=False,
        drop_path=drop_path,
        precision="16-mixed",
        settings=VITDET_SETTINGS,
        source=f"ViTDet mask_rcnn_vitdet_{size}_{epochs}ep",
    )


def _ade20k(source: str, **differences: Any) -> Recipe:
    """mmsegmentation's schedule for transformers: 160k steps of 16 crops of 512 × 512."""
    return Recipe(
        steps=160_000,
        batch_size=16,
        reference_batch=16,
        optimizer="adamw",
        lr=1e-4,
        backbone_lr_factor=1.0,
        weight_decay=0.05,
        no_decay=NO_DECAY,
        schedule="poly",
        power=1.0,
        min_lr=0.0,
        warmup=1500,
        warmup_start=1e-6,
        clip=None,
        norm_eval=False,
        precision="16-mixed",
        source=source,
        **differences,
    )


ARCHITECTURE_RECIPES: dict[str, Recipe] = {
    "coco_vit_b_100ep": _vitdet("b", 100, 0.7, 0.1),
    "coco_vit_l_100ep": _vitdet("l", 100, 0.8, 0.4),
    "coco_vit_h_75ep": _vitdet("h", 75, 0.9, 0.5, no_decay=()),
    "coco_convnext_t_3x": Recipe(
        epochs=36,
        batch_size=16,
        reference_batch=16,
        optimizer="adamw",
        lr=1e-4,
        backbone_lr_factor=1.0,
        layer_decay=0.95,
        weight_decay=0.05,
        no_decay=NO_DECAY,
        schedule="step",
        milestones=(27 / 36, 33 / 36),
        warmup=500,
        warmup_start=1e-3,
        clip=None,
        drop_path=0.4,
        precision="16-mixed",
        settings=SWIN_CROPS,
        source="ConvNeXt mask_rcnn_convnext_tiny 3x",
    ),
    "ade20k_vit_b_160k": _ade20k(
        "MAE upernet_mae-base_fp16_8x2_512x512_160k",
        layer_decay=0.65,
        drop_path=0.1,
        settings={"channels": 768},
    ),
    "ade20k_convnext_t_160k": _ade20k(
        "mmsegmentation upernet_convnext_tiny_fp16_512x512_160k",
        layer_decay=0.9,
        layer_unit="stage",
        drop_path=0.4,
    ),
}
