"""Files that real tools wrote, read without a change: the scores are those of our own files.

``tests/fixtures/exports`` has a folder for each tool, version and format. Three generated images
with boxes and rectangular outlines went through each tool's exporter; the images are kept once.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stillrobust.data import open_dataset, write_coco
from stillrobust.data.check import check_dataset
from stillrobust.metrics import METRICS
from stillrobust.samples import Prediction

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
NAMES = ("a.png", "b.png", "c.png")
CLASSES = ("bus", "car")
# folder -> (format with options, folder of the images, whether there are outlines)
DETECTION = {
    "datumaro-1.13.12-coco": ("coco", "images/val", True),
    "datumaro-1.13.12-voc": ("voc(corners='from_0')", "JPEGImages", False),
    "datumaro-1.13.12-yolo": ("yolo", "obj_val_data", False),
    "globox-2.9.0-coco": ("coco(annotations='a.json', images='b')", "b", False),
    "globox-2.9.0-voc": ("voc(corners='from_0')", "JPEGImages", False),
    "labelformat-0.1.17-coco": ("coco", "data", False),
    "labelformat-0.1.17-voc": ("voc(corners='from_0')", "JPEGImages", False),
    "labelformat-0.1.17-yolo": ("yolo", "images", False),
    "labelstudio-0.0.59-coco": ("coco", "images", False),
    "labelstudio-0.0.59-yolo": ("yolo", "images", False),
    "sahi-0.12.8-coco": ("coco", "images/val", True),
    "supervision-0.31.2-coco": ("coco", "valid", True),
    "supervision-0.31.2-voc": ("voc(corners='from_1')", "JPEGImages", False),
    "supervision-0.31.2-yolo": ("yolo(polygons=True)", "images/val", True),
    "ultralytics-8.4.190-yolo": ("yolo", "images/val", False),
    "ultralytics-8.4.190-yoloseg": ("yolo(polygons=True)", "images/val", True),
}


def place(name, images, root):
    """Copy an export and put the images where its tool had them."""
    shutil.copytree(EXPORTS / name, root)
    (root / images).mkdir(parents=True, exist_ok=True)
    for image in NAMES:
        shutil.copy(EXPORTS / "images" / image, root / images)
    if name.startswith("ultralytics"):  # its converter writes the label files alone
        (root / "data.yaml").write_text("val: images/val\nnames: [bus, car]\n")
    return root


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """The same set as our own writer writes it."""
    root = tmp_path_factory.mktemp("ours")
    shutil.copytree(EXPORTS / "sahi-0.12.8-coco", root / "first")
    (root / "first/images/val").mkdir(parents=True)
    for image in NAMES:
        shutil.copy(EXPORTS / "images" / image, root / "first/images/val")
    source = json.loads((root / "first/annotations/instances_val.json").read_text())
    assert len(source["annotations"]) == 4
    first = open_dataset(f"coco:{root / 'first'}", "val")
    write_coco(root / "set", "val", [first[n] for n in range(3)], CLASSES)
    return open_dataset(f"coco:{root / 'set'}", "val")


def score(data, masks):
    """Scores of predictions that are a little beside the truth, by the name of the image."""
    info = replace(data.info, has_masks=masks)
    metric = METRICS["detection"](info)
    for index in range(len(data)):
        target = data[index].target
        rng = np.random.default_rng(sum(Path(target.image_id).name.encode()))
        order = np.lexsort(np.round(target.boxes).T)
        boxes = target.boxes[order] + rng.integers(-2, 3, target.boxes.shape)
        found = None
        if masks:
            found = np.roll(target.masks[order], 2, axis=2)
        labels = np.array([CLASSES.index(data.info.classes[n]) for n in target.labels[order]])
        scores = rng.random(len(boxes)).astype(np.float32)
        metric.update(
            [Prediction(boxes=boxes, labels=labels, scores=scores, masks=found)], [target]
        )
    return metric.compute()


def test_every_export_is_used():
    kept = {path.name for path in EXPORTS.iterdir()} - {"images", "datumaro-1.13.12-voc_maps"}
    assert kept == set(DETECTION)


@pytest.mark.parametrize("name", DETECTION)
def test_exports_of_tools_score_as_our_own_files(name, ours, tmp_path):
    form, images, masks = DETECTION[name]
    spec = f"{form}:{place(name, images, tmp_path / 'set')}"
    assert check_dataset(spec).whole
    data = open_dataset(spec, "val")
    assert data.info.classes == CLASSES
    assert data.info.has_masks == masks
    found = score(data, masks)
    assert found == score(ours, masks)
    assert 0 < found["box_ap"] < 1


def test_label_maps_of_datumaro(ours, tmp_path):
    """Colours of Pascal VOC's palette, which the list of names leaves out."""
    root = place("datumaro-1.13.12-voc_maps", "JPEGImages", tmp_path / "set")
    data = open_dataset(f"voc_maps:{root}", "val")
    assert data.info.classes == ("background", *CLASSES)
    for index in range(3):
        target = ours[index].target
        expected = np.zeros(target.size, np.uint8)
        for mask, label in zip(target.masks, target.labels, strict=True):
            expected[mask] = label + 1
        np.testing.assert_array_equal(data[index].target.label_map, expected)
