"""One set in every format: the same tables, fingerprints and scores; each is recognised."""

from pathlib import Path

import numpy as np
import pytest

from stillrobust.data import FORMATS, detect_formats, open_dataset, parse_dataset_spec
from stillrobust.data.check import check_dataset
from stillrobust.errors import UserError
from stillrobust.metrics import METRICS
from stillrobust.samples import Prediction
from tests.data import format_writers as writers

ALL = {
    **{("boxes", name): (write, {}) for name, write in writers.BOXES.items()},
    **{("outlines", name): (write, {"outlines": True}) for name, write in writers.OUTLINES.items()},
    **{("maps", name): (write, {}) for name, write in writers.SEGMENTED.items()},
    **{("classes", name): (write, {}) for name, write in writers.CLASSIFIED.items()},
}
# its classes are fixed, so it cannot hold the same set
EVERY = {**ALL, ("maps", "cityscapes"): (writers.cityscapes, {})}
OWN_FORMATS = "stillrobust.data.formats."  # the others are of published sets
FIRST = {kind: next(key for key in ALL if key[0] == kind) for kind, _ in ALL}


def score(dataset):
    """The scores of a model that is wrong in a fixed way."""
    metric = METRICS[dataset.info.task](dataset.info)
    random = np.random.default_rng(3)
    for index in range(len(dataset)):
        target = dataset[index].target
        made = {}
        if target.boxes is not None:
            made = {
                "boxes": target.boxes + random.integers(0, 4, target.boxes.shape),
                "labels": target.labels,
                "scores": random.random(len(target.labels)).astype(np.float32),
                "masks": None if target.masks is None else np.roll(target.masks, 1, 2),
            }
        elif target.label_map is not None:
            made = {"label_map": np.roll(target.label_map, 5, 1) % 3}
        else:
            made = {"probabilities": np.array([0.4, 0.6], np.float32)}
        metric.update([Prediction(**made)], [target])
    return metric.compute()


def content(dataset):
    """All that a sample has, as plain values."""
    samples = [dataset[index] for index in range(len(dataset))]
    return [
        {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in {**vars(sample.target), "image": sample.image}.items()
        }
        for sample in samples
    ]


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    found = {}
    for kind, key in FIRST.items():
        write, how = ALL[key]
        dataset = open_dataset(write(tmp_path_factory.mktemp(kind) / "set", **how), "val")
        found[kind] = dataset.info, content(dataset), score(dataset)
    return found


@pytest.mark.parametrize("key", ALL, ids="-".join)
def test_one_set_in_every_format(references, tmp_path, key):
    write, how = ALL[key]
    root = tmp_path / "set"
    spec = write(root, **how)
    dataset = open_dataset(spec, "val")
    info, samples, scores = references[key[0]]
    assert dataset.info.classes == info.classes
    assert content(dataset) == samples
    assert dataset.info.fingerprint == info.fingerprint
    assert score(dataset) == scores
    if dataset.info.task == "detection":
        training = open_dataset(spec, "val", training=True)
        assert [training.image_id(n) for n in range(len(training))] == ["a.png", "b.png"]
    report = check_dataset(spec, full=True)
    assert report.whole, report.text()
    assert open_dataset(report.spec, "val").info == dataset.info
    options = parse_dataset_spec(spec)[2].given
    if not options or "suffix" in options:  # the layout says all
        assert spec in detect_formats(root)
        if key == ("classes", "csv_with_splits"):  # the images are in class folders, too
            with pytest.raises(UserError, match=r"may be folders:.* or csv:.*; name one"):
                check_dataset(str(root))
        else:
            assert check_dataset(str(root)).spec == parse_dataset_spec(spec)[2].spec()


def test_the_reference_is_not_trivial(references):
    for info, _, scores in references.values():
        assert 0 < scores[next(iter(scores))] < 1, (info.task, scores)
    assert references["outlines"][0].has_masks
    assert not references["boxes"][0].has_masks
    assert references["boxes"][0].fingerprint != references["outlines"][0].fingerprint


@pytest.mark.parametrize("key", EVERY, ids="-".join)
def test_a_cut_image_is_refused_or_left_out(tmp_path, key):
    write, how = EVERY[key]
    spec = write(tmp_path / "set", **how)
    whole = open_dataset(spec, "val")
    victim = whole.files[0]
    if not isinstance(victim, Path):
        pytest.skip("images in tables; see test_huggingface.py")
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(UserError, match="image"):
        content(open_dataset(spec, "val"))
    options = parse_dataset_spec(spec)[2]
    rest = open_dataset(options.spec(leave_out_bad=True), "val")
    assert [name for name, _ in rest.info.left_out] == [whole.image_id(0)]
    assert len(content(rest)) == len(whole) - 1


def test_every_format_of_users_has_a_writer(tmp_path):
    """A new format cannot be forgotten above."""
    written = set()
    for number, (write, how) in enumerate(EVERY.values()):
        written.add(write(tmp_path / str(number), **how).partition(":")[0].partition("(")[0])
    own = {name for name, one in FORMATS.items() if one.open.__module__.startswith(OWN_FORMATS)}
    assert written == own
