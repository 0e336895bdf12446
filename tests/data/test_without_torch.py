"""Without torch, datasets open, corrupt and score, as in an install without the extra ``torch``."""

import subprocess
import sys

CODE = """
import sys

sys.modules["torch"] = sys.modules["torchvision"] = None  # importing them raises ImportError

from pathlib import Path

import numpy as np

from stillrobust.data import CorruptedView, open_dataset, write_coco
from stillrobust.data.check import check_dataset
from stillrobust.data.reading import write_image
from stillrobust.metrics import METRICS
from stillrobust.metrics.recompute import recompute_by_class, recompute_details, recompute_metrics
from stillrobust.samples import Prediction, Sample, Target

root = Path(sys.argv[1])
image = np.full((48, 64, 3), 90, np.uint8)
box = np.array([[8, 8, 40, 30]], np.float32)
mask = np.zeros((1, 48, 64), bool)
mask[0, 8:30, 8:40] = True
target = Target("a.png", (48, 64), boxes=box, labels=np.array([0]), masks=mask)
write_coco(root / "coco", "val", [Sample(image, target)], ["car"])
for folder in ("maps/images/val", "maps/labels/val", "folders/val/cat"):
    (root / folder).mkdir(parents=True)
write_image(root / "maps/images/val/a.png", image)
write_image(root / "maps/labels/val/a.png", mask[0].astype(np.uint8))
write_image(root / "folders/val/cat/a.png", image)


def perfect(target):
    return Prediction(
        probabilities=None if target.label is None else np.ones(1, np.float32),
        boxes=target.boxes,
        labels=target.labels,
        scores=None if target.boxes is None else np.ones(1, np.float32),
        masks=target.masks,
        label_map=target.label_map,
    )


for name in ("coco", "maps", "folders"):
    assert check_dataset(f"{name}:{root / name}").whole
    dataset = open_dataset(f"{name}:{root / name}", "val")
    assert len(dataset) == 1 and dataset[0].target.image_id == dataset.image_id(0)
    sample = CorruptedView(dataset, "gaussian_noise", 3)[0]
    assert (sample.image != image).any()
    metric = METRICS[dataset.info.task](dataset.info)
    metric.update([perfect(sample.target)], [sample.target])
    assert min(metric.compute().values()) > 0.999, metric.compute()
    statistics, weights = metric.statistics(), np.ones((2, 1))
    for recompute in (recompute_metrics, recompute_by_class, recompute_details):
        recompute(statistics, weights)
assert not [name for name in sys.modules if name.startswith("torch.")]
"""


def test_open_corrupt_and_score(tmp_path):
    subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], check=True)
