"""A model that answers by the pixels, and its predictions for exported images."""

import hashlib

import numpy as np

from stillrobust.data import open_dataset
from stillrobust.data.reading import read_image
from stillrobust.evaluation import Protocol
from stillrobust.evaluation.prediction_files import write_predictions
from stillrobust.evaluation.prediction_manifest import read_manifest
from stillrobust.evaluation.prediction_scoring import score_predictions
from stillrobust.samples import Prediction

PROTOCOL = Protocol(("gaussian_noise", "elastic_transform"), (3, 5), warp_truth=True)
FORMATS = {"classification": "folders", "detection": "coco", "segmentation": "maps"}
IMAGES = 5
BOX = [10.0, 10.0, 34.0, 14.0]


def predict(task, classes, image):
    """What a model without learning makes of the pixels: another answer for every pixel changed."""
    seed = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big")
    rng, (height, width) = np.random.default_rng(seed), image.shape[:2]
    if task == "classification":
        values = rng.random(classes, np.float32)
        return Prediction(probabilities=values / values.sum())
    if task == "segmentation":
        label_map = rng.integers(0, classes, (height, width), np.uint8)
        return Prediction(label_map=label_map, confidence=rng.random((height, width), np.float32))
    count = seed % 3  # also none
    corners = rng.random((count, 2, 2), np.float32) * np.array([width, height], np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    masks = rng.random((count, height, width)) < 0.3
    return Prediction(
        boxes=boxes,
        labels=rng.integers(0, classes, count),
        scores=np.full(count, 0.1, np.float32) + rng.integers(0, 2, count).astype(np.float32) / 3,
        masks=masks,
    )


def run_in_this_process(jobs, workers, listen):
    for job in jobs:
        job.run(lambda *_: None)


def dump(exported, out, places=None):
    """Do what a person does: read the exported images, and write what the model answers."""
    manifest = read_manifest(exported.root)
    for corruption, severity in places or manifest.cells:
        found = (
            predict(
                exported.task,
                len(manifest.classes),
                read_image(exported.root / corruption / str(severity) / file),
            )
            for file in manifest.files
        )
        write_predictions(out, manifest, (corruption, severity), found)
    return manifest


def score(exported, files, results, name="mine", **options):
    return score_predictions(
        exported.root, files, open_dataset(exported.data, "val"), results, name, **options
    )
