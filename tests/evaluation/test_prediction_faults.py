"""Files of predictions with a fault: one sentence, and nothing is written."""

import json
import shutil

import numpy as np
import pytest

from stillrobust.data.reading import write_image
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, prediction_scoring
from stillrobust.evaluation.prediction_entries import read_entries
from stillrobust.evaluation.prediction_manifest import read_manifest
from stillrobust.storage.store import Store
from stillrobust.tools import prediction_export
from stillrobust.tools.prediction_export import export_images
from tests.evaluation.exports import BOX, IMAGES, dump, run_in_this_process, score

FAULTS = {
    "detection": {
        "image_id 99": [{"image_id": 99, "category_id": 1, "bbox": BOX, "score": 0.5}],
        "category": [{"image_id": 1, "category_id": 3, "bbox": BOX, "score": 0.5}],
        "NaN": '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, NaN, 2], "score": 0.5}]',
        "infinite": '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 1e999, 2], "score": 0.5}]',
        "negative": [{"image_id": 1, "category_id": 1, "bbox": [9, 9, -1, 2], "score": 0.5}],
        "outside": [{"image_id": 1, "category_id": 1, "bbox": [9, 9, 99, 2], "score": 0.5}],
        "score": [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 2}],
        "no score": [{"image_id": 1, "category_id": 1, "bbox": BOX}],
        "text": [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": "0.5"}],
        "twice": [
            {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5},
            {"image_id": 1, "category_id": 2, "bbox": BOX, "score": 0.5},
            {"image_id": "0.png", "category_id": "wide", "bbox": BOX, "score": 0.5},
        ],
        "empty twice": [{"image_id": 1}, {"image_id": 1}],
        "empty and not": [
            {"image_id": 1},
            {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5},
        ],
        "cut off": '[{"image_id": 1},\n{"image_id": 2}',
        "in an entry": '[{"image_id": 1},\n{"image_id',
        "two arrays": '[{"image_id": 1}][{"image_id": 2}]',
        "no comma": '[{"image_id": 1} {"image_id": 2}]',
        "not entries": "[1, 2]",
        "an object": "{}",
        "missing": [{"image_id": 1}],
        "size": [
            {
                "image_id": 1,
                "category_id": 1,
                "bbox": BOX,
                "score": 0.5,
                "segmentation": {"size": [2, 2], "counts": [4]},
            }
        ],
        "some masks": [
            {
                "image_id": 1,
                "category_id": 1,
                "bbox": BOX,
                "score": 0.5,
                "segmentation": {"size": [64, 64], "counts": [64 * 64]},
            },
            {"image_id": 2, "category_id": 1, "bbox": BOX, "score": 0.5},
        ],
    },
    "classification": {
        "no header": "tall/1.png,tall\n",
        "unknown": "image,label\nother.png,tall\n",
        "class": "image,label\ntall/1.png,high\n",
        "index": "image,label\ntall/1.png,1\n",
        "twice": "image,label\ntall/1.png,tall\ntall/1.png,tall\n",
        "missing": "image,label\ntall/1.png,tall\n",
        "other classes": "image,wide,high\ntall/1.png,0.5,0.5\n",
        "not a number": "image,wide,tall\ntall/1.png,nan,1\n",
        "text": "image,wide,tall\ntall/1.png,x,1\n",
        "short": "image,wide,tall\ntall/1.png,1\n",
        "long": f"image,label\n{'x' * 200_000},tall\n",
        "empty": "",
    },
}
SAID = {
    "image_id 99": "got 99; use the columns 'id' or 'image' of images.csv",
    "category": "got 3 for 1",
    "NaN": "entry 1 has NaN",
    "infinite": "detection 1, of '0.png', has .*inf",
    "negative": "x, y, width, height as 'bbox'",
    "outside": "scored on 0.png .*boxes xyxy in pixels",
    "score": "scores in 0..1",
    "no score": "and None; write COCO results",
    "twice": "twice|as detections 1 and 3",
    "empty twice": "'0.png' once as without detections",
    "empty and not": "'0.png' once as without detections",
    "cut off": "after entry 2 it is damaged or cut off",
    "in an entry": "after entry 1 it is damaged or cut off",
    "missing": "first '1.png'|4 are missing, first",
    "size": r"size \[64, 64\] in detection 1",
    "some masks": "detection 2, of 2, differs",
    "unknown": "got 'other.png'",
    "class": "got 'high' for 'tall/1.png'",
    "other classes": "the 2 classes",
    "short": "line 2",
    "long": "Expected a whole text file",
    "not a number": "'tall/1.png' has one that is not a number",
}


def test_the_first_fault_is_named_and_nothing_is_written(exported, tmp_path):
    if exported.task == "segmentation":
        pytest.skip("label maps are tested below")
    options = {"missing_are_empty": True} if exported.task == "detection" else {}
    for name, content in FAULTS[exported.task].items():
        files, results = tmp_path / "files" / name, tmp_path / "out"
        text = content if isinstance(content, str) else json.dumps(content)
        suffix = "json" if exported.task == "detection" else "csv"
        if exported.task == "detection":
            files.mkdir(parents=True)
            nothing = [{"image_id": number} for number in range(1, IMAGES + 1)]
            (files / "clean_0.json").write_text(json.dumps(nothing))
        else:
            dump(exported, files, [("clean", 0)])
        (files / f"elastic_transform_3.{suffix}").write_text(text)
        with pytest.raises(UserError, match=SAID.get(name, "Expected")) as error:
            score(exported, files, results, **({} if name == "missing" else options))
        assert "\n" not in str(error.value), name
        assert not results.exists(), name


@pytest.mark.parametrize("fault", ["missing", "other", "size", "class", "confidence", "damaged"])
def test_label_maps_are_checked(exported, tmp_path, fault):
    if exported.task != "segmentation":
        pytest.skip("label maps only")
    files = tmp_path / "files"
    dump(exported, files, [("clean", 0)])
    path = files / "clean/0/2.png"
    if fault == "missing":
        path.unlink()
    elif fault == "other":
        (files / "clean/0/9.png").write_bytes(path.read_bytes())
    elif fault == "size":
        write_image(path, np.zeros((32, 32), np.uint8))
    elif fault == "class":
        write_image(path, np.full((64, 64), 3, np.uint8))
    elif fault == "confidence":
        path.with_name("2.confidence.npy").write_bytes(b"no")
    else:
        path.write_bytes(b"no")
    with pytest.raises(UserError, match=r"2\.png|9\.png|2\.confidence\.npy"):
        score(exported, files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.json", "[" * 100_000),
        ("manifest.json", "[]"),
        ("manifest.json", '{"protocol": 5}'),
        ("images.csv", "a" * 200_000),
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path, name, text):
    for file, content in {"manifest.json": "{}", "images.csv": "image\n", name: text}.items():
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match="it cannot be read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("task", [None, "captions", ["detection"]])
def test_a_manifest_of_no_known_task_is_one_sentence(exported, tmp_path, task):
    shutil.copytree(exported.root, tmp_path / "export")
    path = tmp_path / "export" / "manifest.json"
    content = json.loads(path.read_text())
    content["circumstances"] |= {"task": task}
    if task is None:
        del content["circumstances"]["task"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="it cannot be read"):
        read_manifest(tmp_path / "export")


def test_a_damaged_record_of_an_export_is_one_sentence(exported, tmp_path, monkeypatch):
    """Of a finished batch, after an interruption."""

    def damage(jobs, workers, listen):
        run_in_this_process(jobs, workers, listen)
        for path in (tmp_path / "out").glob(".records/*/*.json"):
            path.write_text("[1,")

    monkeypatch.setattr(prediction_export, "run_jobs", damage)
    with pytest.raises(UserError, match="remove it and run the same command again"):
        export_images(exported.data, tmp_path / "out", Protocol(("fog",), (3,)))


def test_a_file_that_changes_while_it_is_scored_is_not_stored(exported, tmp_path, monkeypatch):
    """The key of a cell stands for the content that was hashed."""
    files, results = tmp_path / "files", tmp_path / "out"
    dump(exported, files, [("clean", 0)])
    digest, calls = prediction_scoring.predictions_digest, []

    def changed(path):
        calls.append(path)
        return digest(path) if len(calls) == 1 else "another"

    monkeypatch.setattr(prediction_scoring, "predictions_digest", changed)
    with pytest.raises(UserError, match="but it changed"):
        score(exported, files, results)
    assert len(calls) == 2
    assert not Store(results).measurements()


@pytest.mark.parametrize("text", ['[{"a":' * 100_000, f'[{{"a":{"1" * 5000}}}]'])
def test_entries_that_no_parser_takes_are_one_sentence(tmp_path, text):
    (tmp_path / "fog_1.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        list(read_entries(tmp_path / "fog_1.json"))
