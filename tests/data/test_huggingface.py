"""Hugging Face datasets: columns, box formats, objects in Python, and what is refused."""

import re
import shutil
import socket

import datasets
import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.data import huggingface_dataset, open_dataset
from stillrobust.data.check import check_dataset
from stillrobust.errors import UserError
from stillrobust.extras import MissingExtraError
from tests.data import format_writers as writers

IMAGE, TEXT = datasets.Image(), datasets.Value("string")
PHOTOS = [writers.encoded(writers.photo(name)) for name in writers.NAMES]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    def refuse(*arguments):
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def rows(features=None, **columns):
    return datasets.Dataset.from_dict(
        {"image": PHOTOS, **columns}, features=datasets.Features({"image": IMAGE, **features})
    )


def objects(values, category=datasets.Value("int64"), **renamed):
    box = datasets.Sequence(datasets.Value("float32"))
    fields = [{"bbox": box, "category": category}]
    for old, new in renamed.items():
        fields[0][new] = fields[0].pop(old)
        values = [[{new: one[old], **one} for one in image] for image in values]
        values = [[{k: v for k, v in one.items() if k != old} for one in im] for im in values]
    return rows({"objects": fields}, objects=values)


BOX = [{"bbox": [4, 5, 10, 20], "category": 1}]


def test_objects_as_a_list_of_structs_without_names():
    data = huggingface_dataset(objects([BOX, [], BOX]), "mine", box_format="xywh")
    assert data.info.classes == ("class 0", "class 1")
    assert data[0].target.boxes.tolist() == [[4, 5, 14, 25]]
    assert data.image_id(2) == "2"
    assert any("have no names" in note for note in data.info.notes)
    assert any("numbers of the rows" in note for note in data.info.notes)
    named = huggingface_dataset(
        objects([BOX, [], BOX]), box_format="xyxy", names=["bus", "car"], classes=["car"]
    )
    assert named.info.classes == ("car",)
    assert named[0].target.boxes.tolist() == [[4, 5, 10, 20]]


def test_texts_as_categories_and_the_format_in_the_name_of_the_field():
    values = [[{"bbox": [4, 5, 10, 20], "category": name}] for name in ("car", "bus", "car")]
    data = huggingface_dataset(objects(values, TEXT, bbox="bbox_xyxy"))
    assert data.info.classes == ("bus", "car")
    assert data[1].target.boxes.tolist() == [[4, 5, 10, 20]]
    assert data[1].target.labels.tolist() == [0]


def test_the_rows_may_be_selected_and_formatted():
    whole = rows({"label": TEXT}, label=["a", "b", "a"])
    part = huggingface_dataset(whole.select([2, 1]).with_format("numpy"))
    assert [part[n].target.label for n in range(2)] == [0, 1]
    assert (part[0].image == writers.photo(writers.NAMES[2])).all()


def test_several_columns_of_ground_truth_are_said_and_chosen():
    maps = [writers.encoded(writers.label_map(name)) for name in writers.NAMES]
    both = rows({"mask": IMAGE, "label": TEXT}, mask=maps, label=["a", "b", "a"])
    data = huggingface_dataset(both)
    assert data.info.task == "segmentation"
    assert any("label='label' chooses another" in note for note in data.info.notes)
    assert huggingface_dataset(both, label="label").info.task == "classification"


@pytest.mark.parametrize(
    ("made", "options", "sentence"),
    [
        (lambda: objects([BOX] * 3), {}, "box_format='xywh'.*box_format='xyxy'"),
        (lambda: objects([BOX] * 3), {"box_format": "cxcywh"}, "Expected 'xywh' or 'xyxy'"),
        (lambda: objects([BOX] * 3), {"split": "val"}, "has no"),
        (lambda: objects([BOX] * 3, bbox="polygon"), {}, "Expected boxes as one of bbox"),
        (
            lambda: objects([[{"bbox": [0, 0, 900, 9], "category": 0}]] * 3),
            {"box_format": "xywh"},
            "inside its image of 60x40 pixels in row 0",
        ),
        (lambda: rows({"x": TEXT}, x=["a", "b", "c"]), {}, "Expected a column of images, and"),
        (lambda: rows({"label": TEXT}, label=["a"] * 3), {"image": "photo"}, "photo"),
        (
            lambda: rows({"label": datasets.Value("int64")}, label=[0, -1, 0]),
            {},
            r"Expected 0 to 0 in the column 'label', but got -1 \(1 times\)",
        ),
        (lambda: rows({"label": TEXT}, label=["a"] * 3), {"ids": "label"}, "different id in every"),
        (lambda: datasets.DatasetDict(train=rows({})), {}, r"choose a split, .*\['train'\]"),
        (lambda: rows({}).to_iterable_dataset(), {}, "without streaming"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(made, options, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        huggingface_dataset(made(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", [lambda spec: open_dataset(spec, "val"), check_dataset])
def test_a_name_of_the_hub_is_not_downloaded(use):
    sentence = "`stillrobust data fetch huggingface:cppe-5/nowhere nowhere` saves"
    with pytest.raises(UserError, match=sentence):
        use("huggingface:cppe-5/nowhere")


def test_box_format_of_a_folder(tmp_path):
    writers.hugging_face_boxes(tmp_path / "set")
    report = check_dataset(str(tmp_path / "set"))
    assert not report.whole
    assert f"huggingface(box_format='xyxy'):{tmp_path / 'set'}" in report.text()


def test_a_damaged_image_is_left_out(tmp_path):
    bad = [{"bytes": PHOTOS[0]["bytes"][:99], "path": "a.png"}, *PHOTOS[1:]]
    data = rows({"label": TEXT}, label=["a", "b", "a"])
    data = data.remove_columns("image").add_column("image", bad).cast_column("image", IMAGE)
    assert len(huggingface_dataset(data, leave_out_bad=True)) == 2
    with pytest.raises(UserError, match=r"row 0, column 'image' of mine"):
        huggingface_dataset(data, "mine")[0]


def test_damaged_files(tmp_path):
    writers.hugging_face_classes(tmp_path / "set")
    next((tmp_path / "set").rglob("*.arrow")).write_bytes(b"ARROW")
    with pytest.raises(UserError, match="save it again"):
        open_dataset(f"huggingface:{tmp_path / 'set'}", "val")


def test_two_configurations(tmp_path):
    for name in ("one", "two"):
        writers.hugging_face_classes(tmp_path / name, saved=False)
    with pytest.raises(UserError, match=r"such as huggingface:.*one/data"):
        open_dataset(f"huggingface:{tmp_path}", "val")


def test_without_the_package(tmp_path, monkeypatch):
    writers.hugging_face_classes(tmp_path / "set")
    monkeypatch.setattr("stillrobust.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stillrobust\[huggingface\]'"):
        open_dataset(f"huggingface:{tmp_path / 'set'}", "val")


def same(one, other):
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in vars(one).items()
    } == {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in vars(other).items()
    }


@pytest.mark.parametrize(
    "write",
    [writers.folders, writers.map_set, writers.hugging_face_classes, writers.hugging_face_maps],
)
def test_targets_are_read_without_decoding_the_image(tmp_path, monkeypatch, write):
    data = open_dataset(write(tmp_path / "set"), "val")
    targets = [data[index].target for index in range(len(data))]
    for module in ("image_lists", "map_dataset"):
        monkeypatch.setattr(f"stillrobust.data.formats.{module}.read_image", None)
    assert all(same(data.target(index), one) for index, one in enumerate(targets))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder with two repositories: tables with pictures in them, and a folder of pictures."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub/cache")
    tables, pictures = tmp_path / "hub/owner/tables", tmp_path / "hub/owner/pictures"
    (tables / "data").mkdir(parents=True)
    data = objects([BOX, [], BOX], datasets.ClassLabel(names=["bus", "car"]))
    data.to_parquet(tables / "data" / "validation-00000-of-00001.parquet")
    for split in ("train", "test"):
        for label in ("bus", "car"):
            (pictures / split / label).mkdir(parents=True)
            (pictures / split / label / "1.png").write_bytes(PHOTOS[0]["bytes"])
    return tmp_path / "hub"


def fetch(*words):
    return CliRunner().invoke(app, ["data", "fetch", *map(str, words)])


def test_fetch_saves_a_dataset_of_the_hub(hub, tmp_path):
    told = fetch("huggingface:owner/tables", tmp_path / "tables", "--from", hub)
    assert told.exit_code == 0, told.output
    assert "validation: 3 images" in told.output
    data = open_dataset(f"huggingface(box_format='xywh'):{tmp_path / 'tables'}", "val")
    assert data.info.classes == ("bus", "car")
    assert data[0].target.boxes.tolist() == [[4, 5, 14, 25]]
    again = fetch("huggingface:owner/tables", tmp_path / "tables", "--from", hub)
    assert "is not empty" in str(again.exception)


def test_fetched_images_do_not_stay_in_a_cache(hub, tmp_path):
    fetch("huggingface:owner/pictures", tmp_path / "pictures", "--from", hub)
    shutil.rmtree(hub)
    data = open_dataset(f"huggingface:{tmp_path / 'pictures'}", "train")
    assert data.info.classes == ("bus", "car")
    assert (data[0].image == writers.photo(writers.NAMES[0])).all()


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("huggingface:owner/nowhere", "Expected a copy of owner/nowhere at"),
        ("huggingface:name", "Expected a dataset of the hub as huggingface:OWNER/NAME"),
        ("huggingface(split='a'):owner/tables", "Expected a dataset of the hub as"),
        ("coco:owner/tables", "Expected a dataset of the hub as"),
        ("huggingface(config='none'):owner/tables", "Cannot fetch owner/tables .*'none' not found"),
    ],
)
def test_fetches_that_are_refused(spec, sentence, hub, tmp_path):
    told = fetch(spec, tmp_path / "out", "--from", hub)
    assert isinstance(told.exception, UserError)
    assert re.search(sentence, str(told.exception))
    assert not (tmp_path / "out").exists()


def test_without_a_network_the_sentence_names_the_hub(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    told = fetch("huggingface:owner/tables", tmp_path / "out")
    assert "Cannot reach https://huggingface.co" in str(told.exception)
    assert not (tmp_path / "out").exists()
