"""Datasets of a user's own in Python: the contract is checked, and each break is one sentence."""

from dataclasses import replace

import datasets
import numpy as np
import pytest

from stillrobust.data.contract import (
    fingerprint_samples,
    read_checked,
    require_dataset,
    sample_fault,
)
from stillrobust.errors import UserError
from stillrobust.samples import IGNORE
from tests.toys import Toys

TASKS = ("classification", "detection", "segmentation")


def changed(sample, **fields):
    return replace(sample, target=replace(sample.target, **fields))


def of(task):
    data = Toys(task)
    return data[0], data.info


@pytest.mark.parametrize("task", TASKS)
def test_a_sound_dataset_is_returned_as_it_is(task):
    data = Toys(task)
    assert require_dataset(data) is data
    assert sample_fault(data[3], data.info) == ""


BREAKS = {
    "no sample": (TASKS, lambda s: (s.image, s.target)),
    "dict": (TASKS, lambda s: {"image": s.image}),
    "float image": (TASKS, lambda s: replace(s, image=s.image / 255)),
    "channels first": (TASKS, lambda s: replace(s, image=s.image.transpose(2, 0, 1))),
    "grey image": (TASKS, lambda s: replace(s, image=s.image[..., 0])),
    "empty image": (TASKS, lambda s: replace(s, image=s.image[:0])),
    "list as image": (TASKS, lambda s: replace(s, image=s.image.tolist())),
    "width before height": (TASKS, lambda s: changed(s, size=(65, 64))),
    "no id": (TASKS, lambda s: changed(s, image_id="")),
    "number as id": (TASKS, lambda s: changed(s, image_id=7)),
    "no label": (TASKS[:1], lambda s: changed(s, label=None)),
    "label too high": (TASKS[:1], lambda s: changed(s, label=2)),
    "name as label": (TASKS[:1], lambda s: changed(s, label="wide")),
    "no boxes": (TASKS[1:2], lambda s: changed(s, boxes=None)),
    "boxes as list": (TASKS[1:2], lambda s: changed(s, boxes=s.target.boxes.tolist())),
    "xywh": (TASKS[1:2], lambda s: changed(s, boxes=np.array([[40.0, 40, 30, 20]]))),
    "NaN": (TASKS[1:2], lambda s: changed(s, boxes=s.target.boxes * np.nan)),
    "label from 1": (TASKS[1:2], lambda s: changed(s, labels=np.array([2]))),
    "negative label": (TASKS[1:2], lambda s: changed(s, labels=np.array([-1]))),
    "float labels": (TASKS[1:2], lambda s: changed(s, labels=np.array([1.0]))),
    "two labels": (TASKS[1:2], lambda s: changed(s, labels=np.array([1, 1]))),
    "no masks": (TASKS[1:2], lambda s: changed(s, masks=None)),
    "masks uint8": (TASKS[1:2], lambda s: changed(s, masks=s.target.masks.astype(np.uint8))),
    "crowd as list": (TASKS[1:2], lambda s: changed(s, crowd=[False])),
    "areas of another number": (TASKS[1:2], lambda s: changed(s, areas=np.ones(2))),
    "no label map": (TASKS[2:], lambda s: changed(s, label_map=None)),
    "label map int64": (TASKS[2:], lambda s: changed(s, label_map=s.target.label_map.astype(int))),
    "small label map": (TASKS[2:], lambda s: changed(s, label_map=s.target.label_map[:9])),
    "label 3 of 3": (TASKS[2:], lambda s: changed(s, label_map=s.target.label_map + np.uint8(3))),
}
CASES = [(name, task) for name, (tasks, _) in BREAKS.items() for task in tasks]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_broken_sample_is_one_sentence_that_names_it(name, task):
    data = Toys(task)
    data_get = type(data).__getitem__

    class Broken(Toys):
        def __getitem__(self, index):
            return BREAKS[name][1](data_get(self, index))

    with pytest.raises(UserError, match=r"toys cannot be used at .*index 2.*: expected") as error:
        read_checked(Broken(task), 2)
    assert ", but got " in str(error.value) or "but some end before" in str(error.value)


def test_ignored_pixels_are_no_label():
    sample, info = of("segmentation")
    ignored = np.full_like(sample.target.label_map, IGNORE)
    assert sample_fault(changed(sample, label_map=ignored), info) == ""


def test_an_error_of_the_dataset_is_one_sentence():
    class Failing(Toys):
        def __getitem__(self, index):
            return {}["image"]

    with pytest.raises(UserError, match="toys failed at index 0: KeyError"):
        read_checked(Failing("detection"), 0)


@pytest.mark.parametrize(
    "other",
    [
        datasets.Dataset.from_dict({"image": [0], "label": [0]}),
        [(np.zeros((4, 4, 3), np.uint8), 0)],
        {"images": []},
        None,
        "coco:mydata",
        42,
    ],
    ids=["Hugging Face", "list", "dict", "None", "text", "number"],
)
def test_other_objects_are_one_sentence(other):
    with pytest.raises(
        UserError, match=r"Expected a dataset whose info .* docs/how_to/your_data\.md"
    ):
        require_dataset(other)


def test_info_and_length_must_agree():
    data = Toys("detection")
    data.info = replace(data.info, size=13)

    class Twelve(Toys):
        def __len__(self):
            return 12

    short = Twelve("detection")
    short.info = data.info
    with pytest.raises(UserError, match=r"Expected 13 images in toys.* len\(\) is 12"):
        require_dataset(short)


@pytest.mark.parametrize("task", TASKS)
def test_the_fingerprint_sees_every_field(task):
    data = Toys(task)
    samples = [data[index] for index in range(3)]

    def digest(first):
        return fingerprint_samples(data.info.classes, [first, *samples[1:]])

    plain, first = digest(samples[0]), samples[0]
    others = [
        replace(first, image=first.image ^ 1),
        *(
            changed(first, **{name: value})
            for name, value in {
                "image_id": "other",
                "label": 1,
                "boxes": first.target.boxes + 1,
                "labels": 1 - first.target.labels,
                "masks": ~first.target.masks,
                "crowd": ~first.target.crowd,
                "areas": first.target.areas + 1,
                "label_map": first.target.label_map ^ 1,
            }.items()
        ),
    ]
    assert plain == digest(data[0])
    assert len({plain, *map(digest, others)}) == 1 + len(others)
    assert fingerprint_samples(("wide", "other"), samples) != plain
