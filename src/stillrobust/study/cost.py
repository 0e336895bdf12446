"""Estimated cost of runs, each with its source; ``None`` if there is no estimate.

GPU-hours are hours of one NVIDIA V100, to which the published timings refer. An H100 with mixed
precision takes a quarter to a third.
"""

from typing import Any, NamedTuple

from stillrobust.names import parse_spec
from stillrobust.study import vit_cost
from stillrobust.study.runs import StudyRun
from stillrobust.tasks.recipes import RECIPES
from stillrobust.training import Plan


class CostEstimate(NamedTuple):
    """A number and its source."""

    value: float
    source: str


_MMDET = "mmdetection docs/model_zoo.md: 0.265 s an iteration of 16 images on 8 V100"
_SWIN_DET = "R50's time times 1.3 (Swin-T), by GMAC for S and B"
_UPER = (
    "236 GMAC a crop (945 at 512x2048, Swin-Transformer-Semantic-Segmentation README) at 8.6"
    " TFLOP/s"
)
_CIFAR = "7.5 million images of 224 px at the speed of ImageNet training"

# V100-hours of one training, by recipe and architecture.
TRAINING: dict[tuple[str, str], CostEstimate] = {
    ("coco_r50_2x", "resnet50"): CostEstimate(103.6, _MMDET),
    ("coco_swin_t_2x", "swin_t"): CostEstimate(135, _SWIN_DET),
    ("coco_swin_3x", "swin_s"): CostEstimate(280, _SWIN_DET),
    ("coco_swin_b_3x", "swin_b"): CostEstimate(340, _SWIN_DET),
    ("coco_swin_b_3x", "swin_b_384"): CostEstimate(340, _SWIN_DET),
    ("ade20k_r50_80k", "resnet50"): CostEstimate(60, _UPER),
    ("ade20k_swin_t_80k", "swin_t"): CostEstimate(60, _UPER),
    ("ade20k_swin_160k", "swin_s"): CostEstimate(120, _UPER),
    ("ade20k_swin_160k", "swin_b"): CostEstimate(155, _UPER),
    ("ade20k_swin_160k", "swin_b_384"): CostEstimate(160, _UPER),
    ("cifar10", "resnet50"): CostEstimate(6.5, _CIFAR),
    ("cifar10", "swin_t"): CostEstimate(6.5, _CIFAR),
    **{key: CostEstimate(*estimate) for key, estimate in vit_cost.TRAINING.items()},
}

# Milliseconds an image on one V100. COCO: mmdetection's metafile; Swin's, by the ratio of training.
# ADE20K: mmsegmentation's configs/{upernet,swin}/README. ImageNet: 755 images a second,
# microsoft/Swin-Transformer README; CIFAR-10 at the same size.
MILLISECONDS: dict[tuple[str, str], float] = {
    ("coco", "resnet50"): 62.1, ("coco", "swin_t"): 80.7, ("coco", "swin_s"): 112,
    ("coco", "swin_b"): 136, ("coco", "swin_b_384"): 136,
    ("ade20k", "resnet50"): 42.7, ("ade20k", "swin_t"): 47.5, ("ade20k", "swin_s"): 67.9,
    ("ade20k", "swin_b"): 79.1, ("ade20k", "swin_b_384"): 82.6,
    ("imagenet_c", "resnet50"): 1.3, ("imagenet_c", "swin_t"): 1.3,
    ("cifar10_c", "resnet50"): 1.3, ("cifar10_c", "swin_t"): 1.3,
    **vit_cost.MILLISECONDS,
}  # fmt: skip
TEST_IMAGES = {"coco": 5_000, "ade20k": 2_000, "imagenet_c": 50_000, "cifar10_c": 10_000}

# Parameters in millions of a finished model: 4 bytes each. Mask R-CNN and UPerNet as counted, the
# classifiers' trunks.
PARAMETERS: dict[tuple[str, str], float] = {
    ("detection", "resnet50"): 44.4, ("detection", "swin_t"): 47.8, ("detection", "swin_s"): 69.1,
    ("detection", "swin_b"): 107.1, ("detection", "swin_b_384"): 107.1,
    ("segmentation", "resnet50"): 66.5, ("segmentation", "swin_t"): 59.9,
    ("segmentation", "swin_s"): 81.3, ("segmentation", "swin_b"): 121.3,
    ("segmentation", "swin_b_384"): 121.3,
    ("classification", "resnet50"): 25.6, ("classification", "swin_t"): 28.3,
    **vit_cost.PARAMETERS,
}  # fmt: skip

# Gigabytes unpacked. COCO: 18 + 1 + 0.8 (cocodataset.org); ADE20K: the scene-parsing archive;
# ImageNet: the validation archive; ImageNet-C: noise, blur, weather, digital (zenodo 2235448);
# CIFAR-10-C (zenodo 2535967).
DATA_GIGABYTES = {"coco": 20.0, "ade20k": 1.0, "imagenet_c": 55.0, "cifar10": 0.2, "cifar10_c": 2.9}

# Megabytes of statistics of one cell in the store, for intervals: detections with their matches at
# ten thresholds; intersections and unions by image and class; one bit an image.
CELL_MEGABYTES = {"detection": 12.0, "segmentation": 0.6, "classification": 0.2}


def training_hours(run: StudyRun) -> CostEstimate | None:
    """Estimate the training of a run.

    Args:
        run: The run.

    Returns:
        Hours of one V100; 0 for an upstream run, which trains nothing.
    """
    if run.kind == "upstream":
        return CostEstimate(0, "nothing is trained")
    estimate = TRAINING.get((run.recipe, parse_spec(run.backbone)[0]))
    if estimate is None:
        return None
    return estimate._replace(value=estimate.value * _relative_length(run))


def _relative_length(run: StudyRun) -> float:
    """The length of a training, relative to that of its recipe."""
    recipe = RECIPES[run.recipe]
    for name in ("epochs", "steps"):
        if name in run.changes:
            return float(run.changes[name]) / (getattr(recipe, name) or 1)
    return 1.0


def cell_hours(run: StudyRun) -> float | None:
    """Estimate the evaluation of one cell.

    Args:
        run: The run.

    Returns:
        Hours of one V100.
    """
    milliseconds = MILLISECONDS.get((run.test_data, parse_spec(run.backbone)[0]))
    return None if milliseconds is None else TEST_IMAGES[run.test_data] * milliseconds / 3.6e6


def weights_gigabytes(run: StudyRun) -> float | None:
    """Estimate the disk space of a finished model.

    Args:
        run: The run.

    Returns:
        Gigabytes.
    """
    millions = PARAMETERS.get((run.task, parse_spec(run.backbone)[0]))
    return None if millions is None or run.kind == "upstream" else millions * 4 / 1000


# Bytes of a worker with its libraries and a small model: 1.6 GB at its peak, measured on workers of
# the miniature study.
PROCESS_BYTES = 1_600_000_000

# Bytes that training takes for each pixel of each image, 32-bit, with ResNet-50. Detection: 4.4 GB
# for two images of 1333x800 (mmdetection configs/mask_rcnn/README); segmentation: 8.1 GB for four
# of 512x512 (mmsegmentation configs/upernet/README); classification: 11.1 million activations at
# 224x224 (Radosavovic et al. 2020), kept before and after BatchNorm.
PIXEL_BYTES = {"classification": 1_800, "detection": 2_100, "segmentation": 7_700}
EVALUATION_SHARE = 0.5  # of that without gradients: an upper guess


def job_bytes(plan: Plan, batch_size: int = 0) -> int:
    """Estimate the memory of a worker.

    Args:
        plan: A training.
        batch_size: Images in a batch of an evaluation of its model; 0 for the training itself.

    Returns:
        Bytes.
    """
    task: Any = plan.make_task()
    pixels: int = {
        "classification": lambda: task.crop**2,
        "detection": lambda: task.image_size[0] * task.image_size[1],
        "segmentation": lambda: task.crop[0] * task.crop[1],
    }[plan.task]()
    image = pixels * PIXEL_BYTES[plan.task]
    if batch_size:
        return int(PROCESS_BYTES + EVALUATION_SHARE * batch_size * image)
    return plan.recipe.devices * PROCESS_BYTES + plan.recipe.batch_size * image
