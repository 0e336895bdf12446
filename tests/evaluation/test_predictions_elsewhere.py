"""Predictions that were made elsewhere are scored as ``evaluate`` scores the same model."""

import gzip
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from stillrobust.analysis.plausibility import run_warnings
from stillrobust.data import open_dataset
from stillrobust.data.reading import encode_png, write_image
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate, plausibility, prediction_entries
from stillrobust.evaluation.prediction_entries import read_entries
from stillrobust.evaluation.prediction_manifest import cell_name, read_manifest
from stillrobust.evaluation.prediction_scoring import score_predictions
from stillrobust.grid import Cell
from stillrobust.predictors import Predictor
from stillrobust.storage.files import bytes_sha256
from stillrobust.storage.store import Store
from stillrobust.tools import prediction_export
from stillrobust.tools.prediction_export import export_images
from tests.evaluation.exports import (
    BOX,
    FORMATS,
    IMAGES,
    PROTOCOL,
    dump,
    predict,
    run_in_this_process,
    score,
)


def same_arrays(first, second):
    assert (first is None) == (second is None)
    assert first is None or first.keys() == second.keys()
    for key in first or ():
        assert first[key].dtype == second[key].dtype, key
        np.testing.assert_array_equal(first[key], second[key], key)


def test_records_are_those_of_evaluate(exported, tmp_path):
    """Bit by bit: metrics, statistics, examples and protocol."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"w")
    dataset = open_dataset(exported.data, "val")
    classes = len(dataset.info.classes)
    model = Predictor(
        exported.task,
        "mine",
        lambda images: [predict(exported.task, classes, image) for image in images],
        bytes_sha256(b"w"),
    )
    evaluate(model, dataset, tmp_path / "model", PROTOCOL, "mine")
    manifest = dump(exported, tmp_path / "files")
    summary = score(exported, tmp_path / "files", tmp_path / "out", weights=weights)
    assert summary.scored == manifest.cells == tuple(PROTOCOL.cells())
    own, other = Store(tmp_path / "model"), Store(tmp_path / "out")
    pairs = list(zip(own.measurements(), other.measurements(), strict=True))
    assert len(pairs) == len(PROTOCOL.cells()) * (2 if exported.task == "detection" else 1)
    for one, two in pairs:
        assert (one.metric, one.corruption, one.severity) == (
            two.metric,
            two.corruption,
            two.severity,
        )
        assert (one.value, one.images) == (two.value, two.images)
        assert two.protocol == {**one.protocol, "predictions": "from files"}
        cell = Cell("mine", one.corruption, one.severity)
        same_arrays(own.statistics(cell), other.statistics(cell))
        same_arrays(own.examples(cell), other.examples(cell))
    assert (own.runs()[0].classes, own.runs()[0].kind) == (other.runs()[0].classes, "external")
    again = score(exported, tmp_path / "files", tmp_path / "out", weights=weights)
    assert (again.scored, again.already) == ((), manifest.cells)


def test_other_files_are_another_model(exported, tmp_path):
    files, results = tmp_path / "files", tmp_path / "out"
    dump(exported, files, [("clean", 0)])
    summary = score(exported, files, results)
    assert summary.scored == (("clean", 0),)
    assert len(summary.without_file) == len(PROTOCOL.cells()) - 1
    dump(exported, files, [("elastic_transform", 3)])
    with pytest.raises(UserError, match=r"weights or options of the model differ; .*--replace"):
        score(exported, files, results)
    assert len({one.corruption for one in Store(results).measurements()}) == 1
    assert len(score(exported, files, results, replace_stale=True).scored) == 2
    for other in ("nothing", "extra"):
        shutil.copytree(files, tmp_path / other)
    (tmp_path / "extra" / "fog_3.json").write_text("[]")
    with pytest.raises(UserError, match=r"fog_3\.json; name them like clean_0"):
        score(exported, tmp_path / "extra", results, "x")
    with pytest.raises(UserError, match="found none; name them like clean_0"):
        score(exported, tmp_path / "missing", results, "x")


def test_the_exported_pixels_are_those_of_evaluate(exported):
    """A second call writes nothing; a missing cell is written again; sums are those of files."""
    seen = {}

    def look(images):
        for image in images:
            seen.setdefault(bytes_sha256(encode_png(image)), True)
        return [
            predict(exported.task, 3 if exported.task == "segmentation" else 2, i) for i in images
        ]

    evaluate(
        Predictor(exported.task, "look", look, "none"),
        open_dataset(exported.data, "val"),
        exported.folder / "looked",
        PROTOCOL,
    )
    listed = [
        line.split("  ")
        for place in PROTOCOL.cells()
        for line in (exported.root / f"{cell_name(place)}.sha256").read_text().splitlines()
    ]
    assert {digest for digest, _ in listed} == seen.keys()
    assert all(bytes_sha256((exported.root / path).read_bytes()) == sha for sha, path in listed)
    assert not (exported.root / ".records").exists()


def test_an_export_resumes_and_takes_further_cells(exported, tmp_path, monkeypatch):
    few, more = Protocol(("fog",), (3,)), Protocol(("fog", "contrast"), (3,))
    out = tmp_path / "out"
    monkeypatch.setattr(prediction_export, "BATCH", 2)
    calls = []
    whole = prediction_export.write_whole

    def fail_late(files):
        calls.append(files)
        if len(calls) > 9:
            raise UserError("stopped")
        whole(files)

    jobs = prediction_export._jobs
    monkeypatch.setattr(prediction_export, "run_jobs", run_in_this_process)
    monkeypatch.setattr(prediction_export, "write_whole", fail_late)
    with pytest.raises(UserError, match="stopped"):
        export_images(exported.data, out, few)
    monkeypatch.setattr(prediction_export, "write_whole", whole)
    with pytest.raises(UserError, match="finished export"):
        read_manifest(out)
    left = jobs(exported.data, out, few, few.cells(), ["x"] * IMAGES)
    assert 0 < len(left) < 6
    summary = export_images(exported.data, out, few)
    assert (summary.exported, summary.already) == (2, 0)
    summary = export_images(exported.data, out, more)
    assert (summary.exported, summary.already) == (1, 2)
    assert read_manifest(out).cells == tuple(more.cells())
    with pytest.raises(UserError, match="seed differ; choose another folder"):
        export_images(exported.data, out, Protocol(("fog",), (3,), seed=1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"Expected about 0.* GB of free space for 1 cell "):
        export_images(exported.data, out, Protocol(("snow",), (3,)))
    with pytest.raises(UserError, match="holds other files"):
        export_images(exported.data, exported.folder, few)


def test_every_way_to_write_the_same_predictions(exported, tmp_path):
    """Names or numbers, an array or lines, compressed or not, any order: the same score."""
    if exported.task == "segmentation":
        pytest.skip("there is one way to write label maps")
    manifest = dump(exported, tmp_path / "first", [("clean", 0)])
    (path,) = (tmp_path / "first").iterdir()
    with gzip.open(path, "rt") as file:
        text = file.read()
    if exported.task == "detection":
        entries = json.loads(text)
        named = [{**entry, "image_id": manifest.images[entry["image_id"] - 1]} for entry in entries]
        for entry in named:
            if "category_id" in entry:
                entry["category_id"] = manifest.classes[entry["category_id"] - 1]
        ways = {
            "a/clean_0.json": "\ufeff" + json.dumps(named, indent=2),
            "b/clean/0.jsonl": "\n".join(map(json.dumps, entries)),
            "c/clean_0.jsonl.gz": "\n".join(map(json.dumps, named)) + "\n",
            "d/clean_0.json": json.dumps([one for one in entries if "bbox" in one]),
        }
    else:
        header, *lines = text.split()
        rows = [line.split(",") for line in lines]
        ways = {
            "a/clean_0.csv": "\r\n".join([header, *lines[::-1]]),
            "b/clean/0.csv": "\n".join(f"{a},{c},{b}" for a, b, c in [header.split(","), *rows]),
            "c/clean_0.jsonl": "\n".join(
                json.dumps({"image_id": a, "probabilities": [float(b), float(c)]})
                for a, b, c in rows
            ),
            "d/clean_0.json": json.dumps(
                [
                    {"image_id": a, "probabilities": {"wide": float(c), "tall": float(b)}}
                    for a, b, c in rows
                ]
            ),
        }
    score(exported, tmp_path / "first", tmp_path / "out", "first")
    store = Store(tmp_path / "out")
    for name, content in ways.items():
        way, file = name.split("/", 1)
        target = tmp_path / way / file
        target.parent.mkdir(parents=True)
        raw = content.encode()
        target.write_bytes(gzip.compress(raw) if file.endswith(".gz") else raw)
        score(exported, tmp_path / way, tmp_path / "out", way, missing_are_empty=way == "d")
        cells = [Cell(run, "clean", 0) for run in ("first", way)]
        same_arrays(*map(store.statistics, cells))


def test_masks_are_in_all_files_or_in_none(exported, tmp_path):
    if exported.task != "detection":
        pytest.skip("detection only")
    entry = {"category_id": 1, "bbox": BOX, "score": 0.5}
    entries = [{"image_id": number, **entry} for number in range(1, IMAGES + 1)]
    (tmp_path / "files").mkdir()
    (tmp_path / "files/clean_0.json").write_text(json.dumps(entries))
    assert score(exported, tmp_path / "files", tmp_path / "out").masks_missing
    assert {one.metric for one in Store(tmp_path / "out").measurements()} == {"box_ap"}
    rle = {"size": [64, 64], "counts": [0, 64 * 64]}
    masked = [{**entry, "segmentation": rle} for entry in entries]
    (tmp_path / "files/elastic_transform_3.json").write_text(json.dumps(masked))
    with pytest.raises(UserError, match="masks in all files or in none"):
        score(exported, tmp_path / "files", tmp_path / "out", "other")


def test_labels_alone_have_no_calibration(exported, tmp_path):
    if exported.task != "classification":
        pytest.skip("classification only")
    from stillrobust.metrics import METRICS

    manifest = read_manifest(exported.root)
    (tmp_path / "files").mkdir()
    lines = [f"{name},{name.split('/')[0]}" for name in manifest.images]
    (tmp_path / "files/clean_0.csv").write_text("\n".join(["image,label", *lines]))
    score(exported, tmp_path / "files", tmp_path / "out")
    store = Store(tmp_path / "out")
    assert [one.value for one in store.measurements()] == [1.0]
    statistics = store.statistics(Cell("mine", "clean", 0))
    assert METRICS["classification"].recompute_details(statistics, np.ones((1, IMAGES))) == {}


def test_entries_cross_the_borders_of_chunks(tmp_path, monkeypatch):
    entries = [{"image_id": number, "text": "}],{[" * (number % 7)} for number in range(60)]
    for chunk in (1, 7, 64):
        monkeypatch.setattr(prediction_entries, "CHUNK", chunk)
        for indent in (None, 1):
            (tmp_path / "x.json").write_text(json.dumps(entries, indent=indent))
            assert list(read_entries(tmp_path / "x.json")) == entries
        (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, entries)))
        assert list(read_entries(tmp_path / "x.jsonl")) == entries


def test_other_data_is_refused(exported, tmp_path):
    dump(exported, tmp_path / "files", [("clean", 0)])
    other = shutil.copytree(exported.folder / FORMATS[exported.task], tmp_path / "data")
    first = sorted(other.rglob("0.png"))[0]
    write_image(first, np.zeros((64, 64, 3) if "labels" not in str(first) else (64, 64), np.uint8))
    dataset = open_dataset(f"{FORMATS[exported.task]}:{other}", "val")
    with pytest.raises(UserError, match="differs in data; give the same --data"):
        score_predictions(exported.root, tmp_path / "files", dataset, tmp_path / "out", "x")


CODE = """
import sys

sys.modules["torch"] = sys.modules["torchvision"] = None  # importing them raises ImportError

from stillrobust.cli import main

for words in sys.argv[1:]:
    sys.argv = ["stillrobust", *words.split()]
    try:
        main()
    except SystemExit as ending:
        assert not ending.code, words
"""


def test_without_torch(exported, tmp_path):
    """Export, score, report and rename on the command line, as in an install without torch."""
    if exported.task != "detection":
        pytest.skip("one task is enough")
    dump(exported, tmp_path / "files", [("clean", 0)])
    export = f"{tmp_path / 'export'} --corruptions elastic_transform --severities 3,5 --workers 1"
    results = tmp_path / "results"
    scored = f"--data {exported.data} --out {results} --name mine --accept-chance"
    commands = (
        f"predictions export {exported.data} {export} --warp-truth --images 3",
        f"predictions score {exported.root} {tmp_path / 'files'} {scored}",
        f"runs rename {results} mine other",
        f"report {results} --out {tmp_path / 'page'}",
        f"runs remove {results} other",
    )
    subprocess.run([sys.executable, "-c", CODE, *commands], check=True)
    assert read_manifest(tmp_path / "export").images == ("0.png", "1.png", "3.png")
    assert not Store(results / "results").runs()


def test_notes_and_warnings_about_the_data_are_stored(exported, tmp_path, monkeypatch):
    """As by ``evaluate``: the report then shows them."""
    monkeypatch.setattr(plausibility, "data_warnings", lambda summary: ("odd data",))
    dump(exported, tmp_path / "files", [("clean", 0)])
    dataset = open_dataset(exported.data, "val")
    object.__setattr__(dataset, "notes", ("one repair: 3",))
    score_predictions(exported.root, tmp_path / "files", dataset, tmp_path / "out", "mine")
    (run,) = Store(tmp_path / "out").runs()
    assert run.protocol["notes_on_the_data"] == ["one repair: 3"]
    assert run_warnings(run, [])[0] == "odd data"
