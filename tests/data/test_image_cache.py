"""Corrupted images kept for the next model: the same bytes, within the bound, whatever happens to
the folder.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from stillrobust.data.image_cache import CLEARED, ImageCache, parse_size
from stillrobust.data.views import CorruptedView
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, cells_to_evaluate, evaluate
from stillrobust.predictors import Predictor
from stillrobust.samples import Prediction
from stillrobust.storage.store import Store
from stillrobust.study.execute import share_corrupted_images
from stillrobust.study.jobs import EvaluateJob
from tests.execution.example_jobs import Nothing
from tests.toys import Toys

IMAGE = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
BYTES = 32 + 8 + IMAGE.size


def files(folder):
    return sorted(folder.glob("??/*.image"))


def size(folder):
    return sum(path.stat().st_size for path in folder.glob("??/*"))


@pytest.fixture
def made():
    """Calls, and a maker that counts them."""
    calls = []
    return calls, lambda: calls.append(1) or IMAGE + 1


def test_the_second_time_it_is_read(tmp_path, made):
    calls, make = made
    for _ in range(2):  # the second as another process would
        shared = ImageCache(tmp_path, 10**6)
        found = shared.image(IMAGE, {"severity": 1}, make)
        assert found.dtype == np.uint8
        assert np.array_equal(found, IMAGE + 1)
        found[0] = 0  # writable, and nobody else's
    assert len(calls) == 1
    shared.image(IMAGE, {"severity": 2}, make)
    shared.image(IMAGE + 1, {"severity": 1}, make)
    assert len(calls) == 3
    assert len(files(tmp_path)) == 3


def damages(path):
    content = path.read_bytes()
    yield content[:-1]
    yield content[:10]
    yield b""
    yield content[:50] + bytes([content[50] ^ 1]) + content[51:]
    yield content[:32] + b"\xff" * 8 + content[40:]


@pytest.mark.parametrize("kind", range(5))
def test_what_is_not_what_was_written_is_made_again(tmp_path, made, kind):
    calls, make = made
    ImageCache(tmp_path, 10**6).image(IMAGE, {}, make)
    (path,) = files(tmp_path)
    path.write_bytes(list(damages(path))[kind])
    assert np.array_equal(ImageCache(tmp_path, 10**6).image(IMAGE, {}, make), IMAGE + 1)
    assert np.array_equal(ImageCache(tmp_path, 10**6).image(IMAGE, {}, make), IMAGE + 1)
    assert len(calls) == 2


def test_the_bound_holds_and_the_oldest_use_goes_first(tmp_path, made):
    calls, make = made
    limit = 160 * BYTES
    shared = ImageCache(tmp_path, limit)
    most = 0
    for number in range(400):
        shared.image(IMAGE, {"number": number}, make)
        most = max(most, size(tmp_path))
    assert limit * CLEARED < most <= limit
    assert len(calls) == 400
    by_age = files(tmp_path)
    for age, path in enumerate(by_age):
        os.utime(path, ns=(age * 10**9, age * 10**9))
    again = next(
        number for number in range(400) if shared._path(key_of(shared, number)) == by_age[0]
    )
    shared.image(IMAGE, {"number": again}, make)  # used now: no longer the oldest
    for number in range(400, 440):
        shared.image(IMAGE, {"number": number}, make)
    assert len(calls) == 440
    assert by_age[0].exists()
    assert not by_age[1].exists()
    assert size(tmp_path) <= limit


def key_of(shared, number):
    how = {"clean": shared._digest(IMAGE), "number": number}
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()


def test_several_at_once(tmp_path):
    def work(worker):
        shared = ImageCache(tmp_path, 160 * BYTES)
        return all(
            np.array_equal(
                shared.image(IMAGE, {"number": n % 200}, lambda n=n: IMAGE + np.uint8(n % 200)),
                IMAGE + np.uint8(n % 200),
            )
            for n in range(20 * worker, 20 * worker + 100)
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    assert 100 * BYTES < size(tmp_path) <= 160 * BYTES
    assert not list(tmp_path.glob("??/.*"))


def test_a_folder_that_cannot_be_written_is_said_once_and_costs_nothing_else(
    tmp_path, made, recwarn
):
    calls, make = made
    (tmp_path / "file").write_text("no folder")
    shared = ImageCache(tmp_path / "file", 10**6)
    for number in range(3):
        assert np.array_equal(shared.image(IMAGE, {"number": number}, make), IMAGE + 1)
    assert ["they are computed" in str(one.message) for one in recwarn] == [True]
    assert len(calls) == 3


def by_brightness():
    def predict(images):
        bright = [float(image.mean()) % 1 for image in images]
        return [Prediction(probabilities=np.array([one, 1 - one], np.float32)) for one in bright]

    return Predictor("classification", "toy", predict, "weights")


def test_numbers_are_the_same_with_and_without(tmp_path):
    data, protocol = (
        Toys("classification", 6),
        Protocol(("fog", "gaussian_noise"), (1, 4), channel_order="bgr"),
    )
    shared = replace(protocol, shared=ImageCache(tmp_path / "corrupted", 10**7))
    for name, asked in (("without", protocol), ("first", shared), ("second", shared)):
        evaluate(by_brightness(), data, tmp_path / name, asked)
    plain, first, second = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name / "cells").rglob("*.npz")
        }
        for name in ("without", "first", "second")
    )
    assert plain == first == second
    assert len(plain) == 5 + 1  # the clean cell's examples
    keys = [
        {one.key for one in Store(tmp_path / name).measurements()}
        for name in ("without", "first", "second")
    ]
    assert keys[0] == keys[1] == keys[2]
    assert not cells_to_evaluate(data, tmp_path / "without", shared, "toy", "weights")
    assert len(files(tmp_path / "corrupted")) == 6 * 4


def test_what_decides_the_pixels_is_in_the_name(tmp_path, monkeypatch):
    data = Toys("classification", 1)
    shared = ImageCache(tmp_path, 10**7)
    view = CorruptedView(data, "snow", 3, shared=shared)
    views = [
        view,
        replace(view, severity=4),
        replace(view, seed=1),
        replace(view, draws="exact"),
        replace(view, regime="cifar"),
    ]
    views += [
        replace(view, channel_order="bgr"),
        replace(view, corruption="fog"),
        CorruptedView(Toys("classification", 1, 5), "snow", 3),
    ]
    for one in views:
        again = replace(one, shared=shared)
        for _ in range(2):
            assert np.array_equal(again[0].image, replace(one, shared=None)[0].image)
    assert len(files(tmp_path)) == len(views)
    monkeypatch.setattr("stillrobust.corruptions.VERSION", 1000)
    view[0]
    assert len(files(tmp_path)) == len(views) + 1


def test_models_see_a_corruption_one_after_the_other(tmp_path):
    def job(run, corruption):
        return EvaluateJob(
            name=f"evaluate {run} {corruption}",
            folder=tmp_path,
            data="data",
            results=tmp_path,
            protocol=Protocol((corruption,), (1,)),
            run_name=run,
            log=tmp_path,
        )

    first = Nothing(name="train a")
    jobs = [first, *(job(run, corruption) for run in "ab" for corruption in ("snow", "fog"))]
    found = share_corrupted_images(jobs, tmp_path, 10)
    assert [one.name for one in found] == [
        "train a",
        *(f"evaluate {run} {name}" for name in ("fog", "snow") for run in "ab"),
    ]
    assert all((one.shared_images, one.shared_bytes) == (tmp_path, 10) for one in found[1:])


def test_sizes():
    assert [parse_size(text) for text in ("500MB", "20GB", "1.5 tb")] == [
        5 * 10**8,
        2 * 10**10,
        15 * 10**11,
    ]
    for wrong in ("20", "GB", "-1GB", "twenty GB", "nanGB"):
        with pytest.raises(UserError, match="20GB"):
            parse_size(wrong)
