"""Pipes, devices, broken links and huge files in the place of a user's file: one sentence, soon."""

import os
import signal

import pytest

from stillrobust.data import open_dataset
from stillrobust.errors import UserError
from stillrobust.storage.files import file_sha256
from stillrobust.strict_yaml import YamlError, load_yaml
from tests.data import format_writers

SECONDS = 5
FILES = [
    ("coco_folders", "annotations/instances_val.json"),
    ("coco_folders", "val/a.png"),
    ("ultralytics", "data.yaml"),
    ("ultralytics", "labels/val/a.txt"),
    ("ultralytics", "images/val/a.png"),
    ("voc", "Annotations/a.xml"),
    ("voc", "ImageSets/Main/val.txt"),
    ("voc", "JPEGImages/a.png"),
    ("map_set", "labels/val/a.png"),
    ("map_set", "images/val/a.png"),
    ("map_set", "classes.txt"),
    ("folders", "val/car/a.png"),
    ("csv_list", "val.csv"),
]
KINDS = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "9 GB": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 9 << 30),
}


@pytest.fixture(autouse=True)
def time_limit():
    def stop(*_):
        raise AssertionError("it blocks")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def read_all(spec):
    dataset = open_dataset(spec, "val")
    for index in range(len(dataset)):
        dataset[index]
    _ = dataset.info


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "file"), FILES, ids=[f"{one[0]}-{one[1]}" for one in FILES])
def test_a_special_file_is_one_sentence(name, file, kind, tmp_path):
    spec = getattr(format_writers, name)(tmp_path) or f"maps:{tmp_path}"
    read_all(spec)
    (tmp_path / file).unlink()
    KINDS[kind](tmp_path / file)
    with pytest.raises(UserError):
        read_all(spec)


def test_a_special_file_has_no_hash(tmp_path):
    os.mkfifo(tmp_path / "weights.bin")
    for path in (tmp_path / "weights.bin", tmp_path, "/dev/zero"):
        with pytest.raises(UserError, match="regular file"):
            file_sha256(tmp_path / path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("a: " + "[" * 100_000, "deep"), ("{a: " * 100_000, "deep"), ("a" * (1 << 20), "characters")],
)
def test_yaml_ends_soon(text, fault):
    with pytest.raises(YamlError, match=fault):
        load_yaml(text)


def test_a_key_that_is_given_twice_in_an_annotation(tmp_path):
    spec = format_writers.coco_folders(tmp_path)
    path = tmp_path / "annotations/instances_val.json"
    path.write_text(path.read_text().replace('"bbox":', '"bbox": [0, 0, 1, 1], "bbox":', 1))
    with pytest.raises(UserError, match="'bbox' is given twice"):
        open_dataset(spec, "val")
