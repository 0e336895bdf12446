"""A dataset that needs no disk: shapes on noise, for every task."""

import numpy as np

from stillrobust.samples import DatasetInfo, Sample, Target
from stillrobust.tasks.heads import backbone_of

SMALL_STUDY = """
name: small
scenes: {train: 4, val: 4, train_crops: 20, val_crops: 10}
protocols: {short: {corruptions: [fog, gaussian_noise], severities: [1, 3]}}
runs:
  - task: classification
    data: scenes
    settings: {resize: 48, crop: 48}
    changes: {steps: 30, batch_size: 8, checkpoint_seconds: 0.0}
    axes:
      model: ["resnet18(weights='random')"]
      transfer: [fixed_feature, full_network]
"""
SIZE = 64


class Toys:
    """Rectangles; wide ones are class 0, tall ones class 1.

    The segmentation classes are ground, wide, tall.
    """

    def __init__(self, task, size=12, seed=0):
        classes = ("ground", "wide", "tall") if task == "segmentation" else ("wide", "tall")
        self.info = DatasetInfo(
            "toys", task, classes, size, f"toys-{task}-{size}-{seed}", has_masks=True
        )
        self.seed = seed

    def __len__(self):
        return self.info.size

    def image_id(self, index):
        return f"{index}.png"

    def __getitem__(self, index):
        if not 0 <= index < self.info.size:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        kind = index % 2
        h, w = (14, 34) if kind == 0 else (34, 14)
        top, left = rng.integers(2, SIZE - 36, 2)
        image = rng.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), bool)
        mask[top : top + h, left : left + w] = True
        image[mask] += 120
        boxes = np.array([[left, top, left + w, top + h]], np.float32)
        target = Target(
            self.image_id(index),
            (SIZE, SIZE),
            label=kind,
            boxes=boxes,
            labels=np.array([kind]),
            masks=mask[None],
            crowd=np.zeros(1, bool),
            areas=np.array([float(h * w)]),
            label_map=np.where(mask, kind + 1, 0).astype(np.uint8),
        )
        return Sample(image, target)


SETTINGS = {
    "classification": {"resize": SIZE, "crop": SIZE, "crop_scale": (0.9, 1.0)},
    "detection": {
        "channels": 16,
        "box_channels": 32,
        "mask_layers": 1,
        "image_size": (SIZE, SIZE),
        "proposals_before": (50, 50),
        "proposals": (50, 20),
        "rois_per_image": 16,
        "detections": 5,
    },
    "segmentation": {
        "channels": 16,
        "auxiliary_channels": 16,
        "crop": (SIZE, SIZE),
        "test_size": None,
    },
}


def head_names(model):
    """Names of the state-dict entries that are not the backbone's."""
    inside = backbone_of(model)
    prefix = next(name for name, module in model.named_modules() if module is inside) + "."
    return {name for name in model.state_dict() if not name.startswith(prefix)}
