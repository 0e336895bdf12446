"""Loading for an evaluation: read once per corruption, seen once per cell, ahead of a GPU."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from stillrobust.data import open_dataset
from stillrobust.data.views import corrupted_view
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.evaluation.loader import (
    PREFETCH,
    LoadedBatch,
    SeverityViews,
    load_severity_batches,
    loader_settings,
)
from stillrobust.predictors import Predictor
from stillrobust.samples import Prediction
from tests.toys import Toys

GRID = Protocol(("fog", "pixelate"), (1, 3, 5), batch_size=3)


class Counted(Toys):
    """Toys that count how often each is read."""

    def __init__(self, task, size):
        super().__init__(task, size)
        self.reads = Counter()

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


def says_wide(seen):
    """A classifier that keeps what it was shown."""

    def predict(images):
        seen.extend(image.tobytes() for image in images)
        return [Prediction(probabilities=np.array([1, 0], np.float32)) for _ in images]

    return Predictor("classification", "toy", predict, "weights")


def test_an_image_is_read_once_a_corruption_and_predicted_once_a_cell(tmp_path):
    """Before that, plausibility is checked: on 7 targets, and on 7 images twice and one alone."""
    data, seen = Counted("classification", 7), []
    evaluate(says_wide(seen), data, tmp_path, GRID)
    assert data.reads == dict.fromkeys(range(7), 2 + 3)  # clean, fog, pixelate
    checked = 7 + 7 + 1
    assert len(seen[checked:]) == 7 * len(GRID.cells()) == len(set(seen))
    evaluate(
        says_wide(seen), data, tmp_path, Protocol(("fog", "pixelate"), (1, 2, 3, 5), batch_size=3)
    )
    assert data.reads == dict.fromkeys(range(7), 2 + 5)  # the two that have a new severity
    assert len(seen[checked:]) == 7 * (len(GRID.cells()) + 2) == len(set(seen))


def test_a_file_is_decoded_once_a_corruption(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / "data/val" / name).mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / "data/val" / name / "1.png"),
            np.random.default_rng(0).integers(0, 255, (40, 40, 3)),
        )
    decode, decoded = cv2.imdecode, []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(1) or decode(*arguments))
    evaluate(
        says_wide([]),
        open_dataset(f"folders:{tmp_path / 'data'}", "val"),
        tmp_path / "results",
        Protocol(("fog", "snow"), batch_size=1),
    )
    assert len(decoded) == 2 * (1 + 3)  # for plausibility, and for clean, fog and snow


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    data = Toys("detection", 5)
    views = tuple(corrupted_view(data, "gaussian_noise", severity) for severity in (1, 4))
    found = [
        image
        for batch in load_severity_batches(SeverityViews(data, views), 2, workers)
        for image in batch
    ]
    assert [[sample.target.image_id for sample in image] for image in found] == [
        [f"{n}.png"] * 2 for n in range(5)
    ]
    for number, image in enumerate(found):
        assert all(
            np.array_equal(one.image, view[number].image)
            for one, view in zip(image, views, strict=True)
        )


def test_beside_a_gpu_workers_run_ahead_and_pixels_are_pinned(monkeypatch, tmp_path):
    machine = {"cores": 64, "gpus": 1}
    monkeypatch.setattr("stillrobust.runtime.capacity.cores", lambda: machine["cores"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: machine["gpus"])
    monkeypatch.setattr("stillrobust.evaluation.loader.DRIVER", tmp_path)
    settings = loader_settings(torch.device("cuda"))
    assert (settings["num_workers"], settings["pin_memory"], settings["prefetch_factor"]) == (
        16,
        True,
        PREFETCH,
    )
    machine["gpus"] = 8
    # eight processes: a core each stays for the model
    assert loader_settings(torch.device("cuda"))["num_workers"] == 7
    machine["gpus"] = 1
    for number in range(8):  # a study's worker sees one of them
        (tmp_path / str(number)).mkdir()
    assert loader_settings(torch.device("cuda"))["num_workers"] == 7
    machine["cores"] = 1
    # one is always there to run ahead
    assert loader_settings(torch.device("cuda"))["num_workers"] == 1
    assert loader_settings(torch.device("cuda"), 3)["num_workers"] == 3
    assert loader_settings(torch.device("cpu")) == {"num_workers": 0, "pin_memory": False}


def test_pinning_keeps_pixels_and_ground_truth(monkeypatch):
    """Pinned memory needs a GPU: here a copy stands for it."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    sample = Toys("detection")[0]
    sample.image.flags.writeable = False  # as the images of CIFAR-10-C are
    ((pinned,),) = LoadedBatch([[sample]]).pin_memory().samples
    assert pinned.image is not sample.image
    assert np.array_equal(pinned.image, sample.image)
    assert pinned.target is sample.target
    assert (
        torch.utils.data._utils.pin_memory.pin_memory(LoadedBatch([[sample]])).samples[0][0].image
        is not sample.image
    )
