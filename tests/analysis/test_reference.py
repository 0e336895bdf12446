import numpy as np
import pytest
import torchvision

from stillrobust.analysis.reference import (
    ALEXNET,
    as_reference,
    corruption_errors,
    effective_robustness,
    is_imagenet,
    published_reference,
    worst_corruption,
)
from stillrobust.analysis.robustness import robustness
from stillrobust.data import open_dataset
from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.data.reading import write_image
from stillrobust.errors import UserError
from stillrobust.grid import COMMON
from stillrobust.storage.store import Measurement, Run, Store

# Top-1 in %, mean of five severities, in the order of COMMON (game-of-noise, Results/
# clean_results.txt and ANT_results.txt).
RESNET_50 = (
    29.29,
    27.03,
    23.81,
    38.75,
    26.79,
    38.67,
    36.24,
    32.53,
    38.14,
    45.83,
    68.02,
    39.06,
    45.25,
    44.79,
    53.41,
)
ANT = (
    64.77,
    65.73,
    63.95,
    47.02,
    36.98,
    43.30,
    40.56,
    36.71,
    45.50,
    44.20,
    69.66,
    42.12,
    48.89,
    54.65,
    62.36,
)


def run_of(clean, scores, name="run", severities=range(1, 6), metric="top1"):
    rows = [Measurement(name, metric, "clean", 0, clean, {}, 9, 1.0)]
    rows += [
        Measurement(name, metric, c, s, v, {}, 9, 1.0)
        for c, v in zip(COMMON, scores, strict=True)
        for s in severities
    ]
    return robustness(rows, tuple(severities))


@pytest.mark.parametrize(
    ("clean", "scores", "mce"), [(76.13, RESNET_50, 76.70), (76.07, ANT, 62.51)]
)
def test_published_mce(clean, scores, mce):
    found = corruption_errors(run_of(clean / 100, np.array(scores) / 100))
    assert 100 * found.mce == pytest.approx(mce, abs=0.006)


def test_published_relative_mce():
    """ResNet-50: 105.0 (Hendrycks & Dietterich 2019), from AlexNet's clean error and the digits
    above.
    """
    found = corruption_errors(run_of(0.7613, np.array(RESNET_50) / 100))
    assert 100 * found.relative_mce == pytest.approx(105.0, abs=0.6)


def test_alexnet_against_itself_is_one():
    found = corruption_errors(
        run_of(1 - ALEXNET.clean, [1 - ALEXNET.by_corruption[name] for name in COMMON])
    )
    assert found.mce == pytest.approx(1)
    assert found.relative_mce == pytest.approx(1)


def test_any_run_as_reference_by_hand():
    """Errors 0.4 of 0.8; relative (0.4 - 0.2) / (0.8 - 0.3)."""
    reference = as_reference(run_of(0.7, [0.2] * 15, "reference", metric="miou"))
    found = corruption_errors(run_of(0.8, [0.6] * 15, metric="miou"), reference)
    assert (found.mce, found.relative_mce) == pytest.approx((0.5, 0.4))


def test_references_that_do_not_fit():
    with pytest.raises(UserError, match="AlexNet has"):
        corruption_errors(run_of(0.8, [0.6] * 15, severities=[3]))
    with pytest.raises(UserError, match="has box_ap"):
        corruption_errors(run_of(0.8, [0.6] * 15, metric="box_ap"))
    with pytest.raises(UserError, match="has no loss"):
        corruption_errors(run_of(0.8, [0.6] * 15), as_reference(run_of(0.8, [0.8] * 15)))


def test_worst_corruption():
    assert worst_corruption(run_of(0.8, [0.6] * 9 + [0.1] + [0.6] * 5))[0] == "fog"


def test_effective_robustness_by_hand():
    """Standard runs on logit(mPC) = logit(P) - 1; a run 0.05 above that line, and one upon it."""

    def expected(clean):
        return 1 / (1 + np.exp(1 - np.log(clean / (1 - clean))))

    standard = [
        run_of(clean, [expected(clean)] * 15, f"standard-{clean}") for clean in (0.5, 0.6, 0.8)
    ]
    runs = [run_of(0.7, [expected(0.7) + 0.05] * 15), run_of(0.9, [expected(0.9)] * 15)]
    assert effective_robustness(runs, standard) == pytest.approx([0.05, 0.0])


def test_effective_robustness_of_what_has_none():
    one = run_of(0.8, [0.6] * 15)
    for runs, standard, words in (
        ([one], [one], "two standard runs"),
        ([one], [one, run_of(0.7, [0.5] * 15, severities=[3])], "one set of severities"),
        ([run_of(1.0, [0.6] * 15)], [one, run_of(0.7, [0.5] * 15)], "between 0 and 1"),
    ):
        with pytest.raises(UserError, match=words):
            effective_robustness(runs, standard)


def test_imagenet_is_recognised_by_its_classes():
    assert is_imagenet(wordnet_ids())
    assert is_imagenet(wordnet_ids()[::-1])
    assert not is_imagenet(wordnet_ids()[:10])
    assert not is_imagenet([f"class {number}" for number in range(1000)])
    categories = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
    assert is_imagenet(categories)


@pytest.mark.parametrize(
    ("name", "classes", "offered"), [("imagenette", 10, False), ("ilsvrc", 1000, True)]
)
def test_alexnet_is_the_reference_of_imagenet_in_any_folder(name, classes, offered, tmp_path):
    """The classes of the folders decide, not their name."""
    image = np.zeros((2, 2, 3), np.uint8)
    for wnid in wordnet_ids()[:classes]:
        (tmp_path / name / "val" / wnid).mkdir(parents=True)
        write_image(tmp_path / name / "val" / wnid / "a.png", image)
    info = open_dataset(f"folders:{tmp_path / name}", "val").info
    store = Store(tmp_path / "results")
    store.write_run(Run(name, "classification", "m", None, info.name, {}, info.classes, "external"))
    (run,) = store.runs()
    robust = run_of(0.7, [0.5] * 15)
    assert published_reference(robust, run.classes) == (ALEXNET if offered else None)
    assert published_reference(run_of(0.7, [0.5] * 15, severities=[3]), run.classes) is None
