"""Estimated cost of ConvNeXt-T and plain ViTs, derived from published speeds.

Keys and units are those of ``stillrobust.study.cost``: hours and milliseconds of one V100. Each
value is a known cost of Swin-T or ViT-B times a ratio of speeds. A patch of 14 pixels makes
(16 / 14)² times as many tokens as one of 16; attention is taken to be no dearer than that.
"""

# V100-hours of one A100-hour: an assumption
A100 = 2.0
# a training and an evaluated image of Mask R-CNN with ViT-B at 1024 pixels, in seconds of one A100:
# detectron2 projects/ViTDet/README
TRAINING_SECONDS, TEST_SECONDS = 0.314, 0.079
COCO_IMAGES = 100 * 117_266  # 100 epochs of train2017 with annotations
# images a second of UPerNet at 512 pixels: mmsegmentation configs/{swin,convnext,vit,mae}/README,
# ViTs with MLN; the ratio of S and B serves for detection, too
UPERNET = {"swin_t": 21.06, "convnext_t": 19.90, "S": 11.18, "B": 7.14}
# images a second of classifiers at 224 pixels on one V100: Liu et al. 2021, table 1 (Swin-T,
# DeiT-S, DeiT-B); Liu et al. 2022, table 1 (ConvNeXt-T)
CLASSIFIER = {"swin_t": 755.2, "convnext_t": 774.7, "S": 940.4, "B": 292.3}
# the table of `cost`: hours of Swin-T's training on ADE20K (80,000 steps) and CIFAR-10
SWIN_ADE20K, SWIN_CIFAR = 60.0, 6.5
# GFLOPs of Mask R-CNN: facebookresearch/ConvNeXt object_detection/README, and Swin's; Swin-T's
# hours are those of 24 epochs
CONVNEXT_TO_SWIN = 262 / 267
SWIN_COCO, SWIN_COCO_MILLISECONDS = 135.0, 80.7

_VITS = {
    "deit_small_patch16_224": ("S", 1.0),
    "vit_base_patch16_224": ("B", 1.0),
    "vit_base_patch16_clip_quickgelu_224": ("B", 1.0),
    "vit_small_patch14_dinov2": ("S", (16 / 14) ** 2),
    "vit_base_patch14_dinov2": ("B", (16 / 14) ** 2),
}
_DETECTION = (
    "detectron2 projects/ViTDet/README: 0.314 s an image of ViT-B on one A100, taken as two V100;"
    " ViT-S by its speed in UPerNet"
)
_SEGMENTATION = "Swin-T's hours by speeds in mmsegmentation configs/{swin,convnext,vit,mae}/README"
_CIFAR = "Swin-T's hours by images a second: Liu et al. 2021 and 2022, table 1"
_CONVNEXT = "Swin-T's hours by FLOPs: facebookresearch/ConvNeXt object_detection/README"


def _hours_of_vit(size: str, tokens: float) -> tuple[float, float, float]:
    """V100-hours of 100 epochs of COCO, 160,000 steps of ADE20K, and of CIFAR-10's recipe."""
    slower = UPERNET["B"] / UPERNET[size]
    return (
        COCO_IMAGES * TRAINING_SECONDS * A100 * slower * tokens / 3600,
        2 * SWIN_ADE20K * UPERNET["swin_t"] / UPERNET[size] * tokens,
        SWIN_CIFAR * CLASSIFIER["swin_t"] / CLASSIFIER[size] * tokens,
    )


def _milliseconds_of_vit(size: str, tokens: float) -> tuple[float, float, float]:
    """Milliseconds of an image of COCO, ADE20K and CIFAR-10-C."""
    slower = UPERNET["B"] / UPERNET[size]
    return (
        1000 * TEST_SECONDS * A100 * slower * tokens,
        1000 / UPERNET[size] * tokens,
        1000 / CLASSIFIER[size] * tokens,
    )


TRAINING: dict[tuple[str, str], tuple[float, str]] = {
    ("coco_convnext_t_3x", "convnext_tiny"): (SWIN_COCO * 36 / 24 * CONVNEXT_TO_SWIN, _CONVNEXT),
    ("ade20k_convnext_t_160k", "convnext_tiny"): (
        2 * SWIN_ADE20K * UPERNET["swin_t"] / UPERNET["convnext_t"],
        _SEGMENTATION,
    ),
    ("cifar10", "convnext_tiny"): (
        SWIN_CIFAR * CLASSIFIER["swin_t"] / CLASSIFIER["convnext_t"],
        _CIFAR,
    ),
    **{
        (recipe, name): (hours, source)
        for name, (size, tokens) in _VITS.items()
        for recipe, hours, source in zip(
            ("coco_vit_b_100ep", "ade20k_vit_b_160k", "cifar10"),
            _hours_of_vit(size, tokens),
            (_DETECTION, _SEGMENTATION, _CIFAR),
            strict=True,
        )
    },
}
"""(V100-hours, source) of one training of a recipe's own length, by recipe and architecture."""
MILLISECONDS: dict[tuple[str, str], float] = {
    ("coco", "convnext_tiny"): SWIN_COCO_MILLISECONDS * CONVNEXT_TO_SWIN,
    ("ade20k", "convnext_tiny"): 1000 / UPERNET["convnext_t"],
    ("cifar10_c", "convnext_tiny"): 1000 / CLASSIFIER["convnext_t"],
    **{
        (data, name): milliseconds
        for name, (size, tokens) in _VITS.items()
        for data, milliseconds in zip(
            ("coco", "ade20k", "cifar10_c"), _milliseconds_of_vit(size, tokens), strict=True
        )
    },
}
"""Of an image, by dataset and architecture."""

# Millions of parameters. ConvNeXt-T: its README's. ViTs: the classifiers' 86.6 and 22.1 (Touvron et
# al. 2021, table 1); Mask R-CNN adds 25 (Li et al. 2022: 111 with ViT-B), UPerNet as to ConvNeXt-T.
_TRUNK = {"S": 22.1, "B": 86.6}
PARAMETERS: dict[tuple[str, str], float] = {
    ("detection", "convnext_tiny"): 48.0,
    ("segmentation", "convnext_tiny"): 60.0,
    ("classification", "convnext_tiny"): 28.6,
    **{
        (task, name): _TRUNK[size] + more
        for name, (size, _) in _VITS.items()
        for task, more in (("detection", 25.0), ("segmentation", 32.0), ("classification", 0.0))
    },
}
"""Of a finished model, by task and architecture."""
