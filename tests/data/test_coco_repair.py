"""COCO files as tools really write them: repaired and counted, or refused in one sentence."""

import json
import unicodedata

import numpy as np
import pytest

from stillrobust.data import open_dataset
from stillrobust.data.check import check_dataset
from stillrobust.errors import UserError
from tests.data import format_writers as writers
from tests.data.format_writers import EXPECTED, boxes_of


def edit_coco(root, change):
    path = root / "annotations/instances_val.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def first(rows="annotations", **values):
    """Change the first row of a list; ``...`` removes a key."""

    def change(document):
        for key, value in values.items():
            if value is ...:
                del document[rows][0][key]
            else:
                document[rows][0][key] = value

    return change


def text_ids(document):
    names = {image["id"]: image["file_name"] for image in document["images"]}
    for image in document["images"]:
        image["id"] = names[image["id"]]
    for entry in document["annotations"]:
        entry["image_id"] = names[entry["image_id"]]


def ids_of_each_image(document):
    for entry in document["annotations"]:
        entry["id"] = 1 if entry["bbox"][0] in (5, 0) else 2


WHOLE = "ids and sizes that are text or decimal numbers, read as whole numbers: "
REPAIRS = {
    "category as text": (first(category_id="2"), WHOLE + "1"),
    "category as decimal": (first(category_id=2.0), WHOLE + "1"),
    "size as decimal": (first("images", width=60.0, height="40"), WHOLE + "2"),
    "no size": (first("images", width=..., height=None), "images without height and width"),
    "image ids": (text_ids, "image ids that are text, which were numbered: 3"),
    "no annotation id": (first(id=...), "annotations without a whole number as id"),
    "text as annotation id": (first(id="x"), "annotations without a whole number as id"),
    "ids of each image": (ids_of_each_image, "annotation ids that several images use"),
    "no area": (first(area=...), "annotations without an area, which their outline or box gave: 1"),
    "area null": (first(area=None), "annotations without an area"),
    "no iscrowd": (first(iscrowd=...), "annotations without iscrowd, read as single objects: 1"),
    "iscrowd null": (first(iscrowd=None), "annotations without iscrowd"),
    "iscrowd false": (first(iscrowd=False), "values of iscrowd that are text, decimal or boolean"),
    "iscrowd text": (first(iscrowd="0"), "values of iscrowd"),
    "box of texts": (first(bbox=["5", "6", "20", "10"]), "boxes of texts, read as numbers: 1"),
    "box as object": (
        first(bbox={"x": 5, "y": 6, "width": 20, "height": 10}),
        "boxes as an object of x, y, width, height: 1",
    ),
    "no box": (first(bbox=...), "annotations without a box, which their outline gave: 1"),
    "empty box": (first(bbox=[]), "annotations without a box"),
    "dot": (first("images", file_name="./a.png"), "file names with backslashes or a leading ./"),
    "absolute": (first("images", file_name="/home/me/a.png"), "absolute file names, found by"),
    "drive": (first("images", file_name="C:\\sets\\a.png"), "absolute file names, found by"),
    "no suffix": (first("images", file_name="a"), "file names with another case, suffix or form"),
    "case": (first("images", file_name="A.PNG"), "file names with another case, suffix or form"),
    "bare polygon": (first(segmentation=writers.corners(5, 6, 20, 10)), None),
    "empty polygon": (
        first(segmentation=[writers.corners(5, 6, 20, 10), []]),
        None,
    ),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_values_of_one_meaning_are_repaired_and_counted(tmp_path, name):
    """The repaired set is the one that was written."""
    change, note = REPAIRS[name]
    spec = writers.coco_folders(tmp_path, outlines=True)
    before = open_dataset(spec, "val").info
    edit_coco(tmp_path, change)
    dataset = open_dataset(spec, "val")
    assert boxes_of(spec) == EXPECTED
    assert dataset.info.fingerprint == before.fingerprint
    notes = [text for text in dataset.info.notes if "have no object" not in text]
    assert len(notes) == (note is not None)
    assert all(text.startswith(note) for text in notes)
    report = check_dataset(spec)
    assert report.whole
    assert note is None or note in report.text()


def test_boxes_a_few_pixels_outside_are_clipped_and_counted(tmp_path):
    spec = writers.coco_folders(tmp_path)
    edit_coco(tmp_path, first(bbox=[-3, 6, 28, 10]))
    assert boxes_of(spec)[0] == [0, 6, 25, 16]
    assert (
        "boxes that exceed their image and were clipped: 1" in open_dataset(spec, "val").info.notes
    )
    edit_coco(tmp_path, first(bbox=[-6, 6, 28, 10]))
    with pytest.raises(UserError, match="Expected a box inside its image"):
        open_dataset(spec, "val")


def test_names_in_another_form_of_unicode(tmp_path):
    spec = writers.coco_folders(tmp_path)
    (tmp_path / "val/a.png").rename(tmp_path / "val" / unicodedata.normalize("NFD", "mü.png"))
    edit_coco(tmp_path, first("images", file_name=unicodedata.normalize("NFC", "mü.png")))
    names = [open_dataset(spec, "val").image_id(n) for n in range(3)]
    assert names == ["b.png", unicodedata.normalize("NFC", "mü.png"), "sub/c.png"]
    assert boxes_of(spec, 1) == EXPECTED


def test_a_mark_of_notepad(tmp_path):
    spec = writers.coco_folders(tmp_path)
    path = tmp_path / "annotations/instances_val.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert boxes_of(spec) == EXPECTED


def every(rows="annotations", **values):
    def change(document):
        for row in document[rows]:
            row.update(values)

    return change


REFUSED = {
    "two meanings of a crowd": (first(iscrowd=2), "iscrowd 0 or 1"),
    "an id that is no whole number": (first("images", id=1.5), "whole number as image id"),
    "a box of two numbers": (first(bbox=[1, 2]), r"box \[x, y, width, height\]"),
    "neither box nor outline": (
        first(bbox=None, segmentation=[]),
        r"box \[x, y, width, height\]",
    ),
    "nothing annotated": (
        lambda document: document["annotations"].clear(),
        "at least one object in instances_val.json",
    ),
    "crowds only": (every(iscrowd=1), r"all 3 are marked as crowds .*coco\(crowd=False\):"),
    "a class name that is no text": (first("categories", name="c\udce9r"), "written as UTF-8"),
    "a name that leaves the folder": (first("images", file_name="../val/a.png"), "no '..'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_damage_is_one_sentence(tmp_path, name):
    change, sentence = REFUSED[name]
    spec = writers.coco_folders(tmp_path, outlines=True)
    edit_coco(tmp_path, change)
    with pytest.raises(UserError, match=sentence) as caught:
        open_dataset(spec, "val")
    assert "\n" not in str(caught.value)
    assert not check_dataset(spec).whole


def test_crowds_read_as_objects(tmp_path):
    spec = writers.coco_folders(tmp_path)
    edit_coco(tmp_path, every(iscrowd=1))
    dataset = open_dataset(spec.replace("coco", "coco(crowd=False)"), "val")
    assert not dataset[0].target.crowd.any()
    assert "crowds or difficult objects, read as single objects: 3" in dataset.info.notes


def test_one_object_without_an_outline(tmp_path):
    """Without the option masks are not used, and this is said; with it the box is the outline."""
    spec = writers.coco_folders(tmp_path, outlines=True)
    whole = open_dataset(spec, "val")
    edit_coco(tmp_path, first(segmentation=[]))
    dataset = open_dataset(spec, "val")
    assert not dataset.info.has_masks
    said = f"1 of 3 objects have no outline; coco(masks=True):{tmp_path} takes their box"
    assert said in dataset.info.notes[0]
    assert said in check_dataset(spec).text()
    filled = open_dataset(f"coco(masks=True):{tmp_path}", "val")
    assert filled.info.has_masks
    np.testing.assert_array_equal(filled[0].target.masks, whole[0].target.masks)
    assert not open_dataset(f"coco(masks=False):{tmp_path}", "val").info.has_masks


@pytest.mark.parametrize("spec", ["coco(classes=['car']):{}", "yolo(classes=('car',)):{}"])
def test_some_of_the_classes(tmp_path, spec):
    name = spec.partition("(")[0]
    {"coco": writers.coco_folders, "yolo": writers.ultralytics}[name](tmp_path)
    dataset = open_dataset(spec.format(tmp_path), "val")
    assert dataset.info.classes == ("car",)
    assert dataset[0].target.boxes.tolist() == EXPECTED[:1]
    assert len(dataset) == 3  # an image of other classes is background
    assert "1 of 2 classes are used; objects of the others are background" in dataset.info.notes
    turned = open_dataset(f"{name}(classes=['car', 'bus']):{tmp_path}", "val")
    assert turned[0].target.labels.tolist() == [0, 1]
    assert turned.info.classes == ("car", "bus")
    with pytest.raises(UserError, match=r"Unknown class 'cart'\. Did you mean: car"):
        open_dataset(f"{name}(classes=['cart']):{tmp_path}", "val")


def test_some_classes_of_maps_and_folders(tmp_path):
    spec = writers.map_set(tmp_path / "maps").replace("maps:", "maps(classes=['car', 'ground']):")
    labels = open_dataset(spec, "val")[0].target.label_map
    whole = writers.label_map("a.png")
    np.testing.assert_array_equal(labels, np.where(whole == 2, 0, np.where(whole == 0, 1, 255)))
    spec = writers.folders(tmp_path / "f").replace("folders", "folders(classes=['car'])")
    dataset = open_dataset(spec, "val")
    assert [dataset.image_id(n) for n in range(len(dataset))] == ["car/a.png", "car/c.png"]
    assert dataset[1].target.label == 0


@pytest.mark.parametrize("prefix", ["val/", "../val/", "{}/val/"])
def test_names_relative_to_other_folders(tmp_path, prefix):
    """To the root, to the folder of annotations, and absolute."""
    spec = writers.coco_folders(tmp_path)
    before = open_dataset(spec, "val").info
    prefix = prefix.format(tmp_path)
    for place, name in enumerate(writers.NAMES):
        edit_coco(tmp_path, lambda document, p=place, n=name: rename(document, p, prefix + n))
    found = open_dataset(spec, "val").info
    assert (found.fingerprint, found.classes) == (before.fingerprint, before.classes)
    assert f"file names of instances_val.json begin with {prefix}" in found.notes


def rename(document, place, name):
    document["images"][place]["file_name"] = name


def test_a_root_category_with_objects_is_a_class(tmp_path):
    spec = writers.roboflow(tmp_path)
    path = tmp_path / "valid/_annotations.coco.json"
    assert open_dataset(spec, "val").info.classes == writers.CLASSES
    document = json.loads(path.read_text())
    document["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(document))
    assert open_dataset(spec, "val").info.classes == ("vehicles", *writers.CLASSES)
    del document["annotations"][0]
    document["categories"][1]["supercategory"] = "others"
    path.write_text(json.dumps(document))
    dataset = open_dataset(spec, "val")
    assert dataset.info.classes == ("vehicles", *writers.CLASSES)
    assert "1 of the 3 classes have no object: vehicles" in dataset.info.notes
