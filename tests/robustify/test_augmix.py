"""AugMix against Pillow, closed forms and timm; the loss against timm and its limits."""

import math
import random
from collections import Counter
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from benchmarks import plain_augmix as plain
from PIL import Image
from timm.data.auto_augment import AugMixAugment, augmix_ops
from timm.loss import JsdCrossEntropy
from torchvision.transforms import v2

from stillrobust.errors import UserError
from stillrobust.robustify import augmix, build_technique, image_views, require_photometric
from stillrobust.robustify.augmix import (
    DEEPEST,
    OPERATIONS,
    OVERLAPPING,
    Step,
    allowed_operations,
    draw_mixture,
    draw_step,
    mix,
)
from stillrobust.robustify.jsd import jensen_shannon, jsd_loss


def picture(height=64, width=64, seed=0):
    """Smooth colours with hard edges and some noise, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (6, 6, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(
        height, width, 3
    )
    edges = cv2.resize(
        rng.integers(0, 2, (5, 5)).astype(np.uint8),
        (width, height),
        interpolation=cv2.INTER_NEAREST,
    )
    noisy = smooth * (0.6 + 0.4 * edges.reshape(height, width, 1)) + rng.normal(
        0, 4, (height, width, 3)
    )
    return noisy.clip(0, 255).astype(np.uint8)


def by_pillow(image, step):
    return np.asarray(plain.by_pillow(Image.fromarray(image), step))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows_to_the_bit(name):
    rng = np.random.default_rng(1)
    flat = np.full((9, 7, 3), 77, np.uint8)
    flat[..., 1] = rng.integers(100, 103, (9, 7))
    sparse = (picture(40, 30) // 60 * 60).astype(np.uint8)
    for image in (picture(), picture(33, 47, 1), sparse, flat, picture(12, 12, 2), picture(1, 1)):
        before = image.copy()
        for _ in range(8):
            step = Step(name, float(rng.uniform(0.1, 10)), int(rng.choice([-1, 1])))
            assert np.array_equal(OPERATIONS[name](image, step, 0), by_pillow(image, step)), step
        assert np.array_equal(image, before)


@pytest.mark.parametrize("first", allowed_operations(False, True))
def test_chains_are_pillows_too(first):
    """One operation after another, whatever memory layout the first one leaves."""
    image = picture(30, 41)
    for second in allowed_operations(False, True):
        steps = Step(first, 4.4, -1), Step(second, 7.7, 1)
        ours = OPERATIONS[second](OPERATIONS[first](image, steps[0], 0), steps[1], 0)
        assert np.array_equal(
            ours, by_pillow(np.ascontiguousarray(by_pillow(image, steps[0])), steps[1])
        ), second


@pytest.mark.parametrize("name", augmix.GEOMETRIC)
def test_fill_comes_in_from_outside(name):
    bright = np.full((60, 60, 3), 255, np.uint8)
    moved = OPERATIONS[name](bright, Step(name, 10.0, 1), 128)
    assert set(np.unique(moved)) == {128, 255}
    assert 0 < (moved == 128).mean() < 0.5


def mixtures(count, **settings):
    rng = np.random.default_rng(7)
    chosen = {
        "names": allowed_operations(False, True),
        "severity": 3,
        "width": 3,
        "depth": None,
        "alpha": 1.0,
    } | settings
    return [draw_mixture(rng, **chosen) for _ in range(count)]


def test_weights_and_depths():
    drawn = mixtures(20_000)
    mixed = np.array([mixture.mixed for mixture in drawn])
    assert abs(mixed.mean() - 1 / 2) < 0.005  # Beta(1, 1); 2.5 standard errors of 20,000 draws
    assert abs(mixed.var() - 1 / 12) < 0.003
    weights = np.array([mixture.weights for mixture in drawn])
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights.mean(axis=0), 1 / 3, atol=0.005)
    assert np.allclose(weights.var(axis=0), 1 / 18, atol=0.002)  # Dirichlet(1, 1, 1): (1/3)(2/3)/4
    depths = Counter(len(chain) for mixture in drawn for chain in mixture.chains)
    assert set(depths) == {1, 2, 3}
    assert all(abs(count / 60_000 - 1 / 3) < 0.006 for count in depths.values())
    names = Counter(step.name for mixture in drawn for chain in mixture.chains for step in chain)
    assert set(names) == set(allowed_operations(False, True))
    assert all(abs(count / sum(names.values()) - 1 / 9) < 0.003 for count in names.values())


def test_depth_and_width_are_obeyed():
    for mixture in mixtures(50, width=5, depth=2):
        assert [len(chain) for chain in mixture.chains] == [2] * 5


def test_identity_operations_give_the_image(monkeypatch):
    monkeypatch.setattr(
        augmix, "OPERATIONS", dict.fromkeys(OPERATIONS, lambda image, step, fill: image)
    )
    image = picture()
    for mixture in mixtures(20):
        assert np.abs(mix(image, mixture) - image / 255).max() < 1e-6


def test_the_clean_image_has_the_rest_of_the_weight(monkeypatch):
    monkeypatch.setattr(
        augmix,
        "OPERATIONS",
        dict.fromkeys(OPERATIONS, lambda image, step, fill: np.zeros_like(image)),
    )
    white = np.full((1, 1, 3), 255, np.uint8)
    for mixture in mixtures(50):
        assert np.allclose(mix(white, mixture), 1 - mixture.mixed, atol=1e-6)


def test_the_mix_is_not_made_eight_bit_again():
    values = mix(picture(), mixtures(1)[0]) * 255
    assert np.abs(values - np.round(values)).max() > 0.3


def levels(name, severity, parameter, count=20_000):
    rng = np.random.default_rng(3)
    steps = (draw_step(rng, (name,), severity) for _ in range(count))
    found = Counter(parameter(step) for step in steps)
    return {key: value / count for key, value in found.items()}


def test_parameters_at_the_papers_severities():
    """The shares that the official code draws: robustification notes, section 1, measured there on
    it.
    """
    degrees = levels("rotate", 1, lambda step: augmix.int_parameter(step, 30))
    assert set(degrees) == {0, 1, 2}
    for value, share in ((0, 0.26), (1, 0.37), (2, 0.37)):
        assert abs(degrees[value] - share) < 0.01
    assert set(levels("posterize", 1, lambda step: 4 - augmix.int_parameter(step, 4))) == {4}
    assert (
        abs(levels("posterize", 3, lambda step: 4 - augmix.int_parameter(step, 4))[3] - 0.17) < 0.01
    )
    assert min(levels("solarize", 1, lambda step: 256 - augmix.int_parameter(step, 256))) == 231
    assert set(levels("translate_x", 1, lambda step: augmix.int_parameter(step, 224 / 3))) == set(
        range(8)
    )
    signs = levels("rotate", 1, lambda step: step.sign)
    assert abs(signs[1] - 0.5) < 0.01


GENERATED = [lambda seed=seed: picture(64, 64, seed) for seed in range(3)]


def photograph(name):
    """A crop of 224 x 224 of one of scikit-image's."""
    return np.ascontiguousarray(
        getattr(pytest.importorskip("skimage.data"), name)()[:224, :224, :3]
    )


PHOTOGRAPHS = [partial(photograph, name) for name in ("astronaut", "chelsea", "coffee", "rocket")]


@pytest.mark.parametrize(
    ("pictures", "views"),
    [(GENERATED, 400), pytest.param(PHOTOGRAPHS, 300, marks=pytest.mark.slow)],
    ids=["generated", "photographs"],
)
@pytest.mark.parametrize("severity", [1, 3])
def test_as_strong_as_timm_with_the_papers_operations(severity, pictures, views):
    """Mean change in grey levels, per image, within three standard errors.

    timm draws levels from 0, the official code from 0.1.
    """
    settings = {
        "translate_pct": 1 / 3,
        "interpolation": Image.Resampling.BILINEAR,
        "img_mean": (0, 0, 0),
        "magnitude_std": math.inf,
    }
    other = AugMixAugment(augmix_ops(severity, settings, plain.PAPERS))
    state = random.getstate(), np.random.get_state()
    try:
        for seed, make in enumerate(pictures):
            random.seed(seed)
            np.random.seed(seed)
            image = make()
            rng = np.random.default_rng(seed)
            view = build_technique(f"augmix(severity={severity})").augment_image
            ours = [np.abs(view(image, rng) * 255 - image).mean() for _ in range(views)]
            theirs = [
                np.abs(np.asarray(other(Image.fromarray(image)), float) - image).mean()
                for _ in range(views)
            ]
            error = math.hypot(np.std(ours), np.std(theirs)) / math.sqrt(views)
            assert abs(np.mean(ours) - np.mean(theirs)) < 3 * error, (
                seed,
                np.mean(ours),
                np.mean(theirs),
                error,
            )
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])


def test_torchvisions_augmix_does_next_to_nothing_at_severity_1():
    """Why it is not used: severity 1 takes the first of ten magnitudes, which is no shear, no
    shift, no turn, no solarization.
    """
    space = v2.AugMix(severity=1, all_ops=False)._AUGMENTATION_SPACE
    assert {
        "ShearX",
        "ShearY",
        "TranslateX",
        "TranslateY",
        "Rotate",
        "Posterize",
        "Solarize",
    } <= set(space)
    for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        assert float(space[name][0](10, 64, 64)[0]) == 0
    assert float(space["Solarize"][0](10, 64, 64)[0]) >= 1  # nothing is above the threshold


def test_all_ops_are_marked():
    assert build_technique("augmix").overlaps_test == ()
    assert set(build_technique("augmix(all_ops=True)").overlaps_test) == {
        "saturate",
        "contrast",
        "brightness",
        "gaussian_blur",
    }
    assert not set(OVERLAPPING) & set(allowed_operations(False, True))
    assert set(allowed_operations(True, True)) == set(OPERATIONS)
    assert set(allowed_operations(False, False)) == {
        "autocontrast",
        "equalize",
        "posterize",
        "solarize",
    }
    assert build_technique("augmix").geometric
    assert not build_technique("augmix(geometry=False)").geometric


def test_dense_tasks_are_told_what_to_use():
    with pytest.raises(UserError, match=r"use augmix\(geometry=False, jsd=False\)"):
        require_photometric(build_technique("augmix(jsd=False)"), "detection")
    require_photometric(build_technique("augmix(geometry=False, jsd=False)"), "detection")


def test_three_views_the_clean_one_first():
    technique, image = build_technique("augmix"), picture()
    clean, first, second = image_views(technique, image, np.random.default_rng(0))
    assert np.allclose(clean * 255, image)
    assert not np.array_equal(first, second)
    assert technique.loss is jsd_loss
    assert (
        len(image_views(build_technique("augmix(jsd=False)"), image, np.random.default_rng(0))) == 1
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("augmix(severity=0)", "Expected a severity at least 0.1 and at most 10, but got 0"),
        ("augmix(severity=11)", "at most 10"),
        ("augmix(alpha=1e999)", "at most 1000, but got inf"),
        ("augmix(width=1000000000)", "at most 100"),
        ("augmix(width=0)", "Expected a width at least 1"),
        ("augmix(depth=0)", "Expected a depth at least 1"),
        ("augmix(alpha=0)", "Expected alpha at least 0.001"),
        ("augmix(fill=256)", "at most 255"),
        ("augmix(width=2.5)", "width of augmix got 2.5"),
    ],
)
def test_out_of_range(spec, words):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        build_technique(spec)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [picture() / 255, picture()[..., 0], picture()[..., :2], picture()[:0]]
)
def test_only_eight_bit_images(wrong):
    with pytest.raises(UserError, match="uint8"):
        build_technique("augmix").augment_image(wrong, np.random.default_rng(0))


# ---- the consistency loss


def logits(views=3, batch=6, classes=10, scale=3.0):
    generator = torch.Generator().manual_seed(4)
    return [
        scale * torch.randn(batch, classes, dtype=torch.float64, generator=generator)
        for _ in range(views)
    ]


def identity(images):
    return images


def test_loss_is_timms():
    views, labels = logits(), torch.arange(6)
    ours = jsd_loss(identity, views, labels, torch.Generator())
    assert (
        abs(ours - JsdCrossEntropy(num_splits=3, alpha=12, smoothing=0)(torch.cat(views), labels))
        < 1e-12
    )
    assert (
        abs(ours - JsdCrossEntropy(num_splits=3, alpha=12, smoothing=0.1)(torch.cat(views), labels))
        > 1e-3
    )


def test_limits():
    same = logits(1) * 3
    assert abs(jensen_shannon(same)) < 1e-12
    certain = [100 * torch.eye(3, dtype=torch.float64)[[number]] for number in range(3)]
    assert abs(jensen_shannon(certain) - math.log(3)) < 1e-9
    assert jensen_shannon(logits()) < math.log(3)


def test_only_the_clean_view_meets_the_labels():
    views, labels = logits(), torch.arange(6)
    clean, first, second = views
    loss = jsd_loss(identity, views, labels, torch.Generator())
    assert abs(loss - jsd_loss(identity, [clean, second, first], labels, torch.Generator())) < 1e-12
    assert abs(loss - jsd_loss(identity, [first, clean, second], labels, torch.Generator())) > 1e-3


def test_gradient():
    views = [view.requires_grad_() for view in logits(3, 2, 4, 1.0)]
    assert torch.autograd.gradcheck(lambda *given: jensen_shannon(given), views)


def test_half_precision_is_widened():
    halves = [view.to(torch.bfloat16) for view in logits()]
    assert jensen_shannon(halves).dtype == torch.float32
    assert abs(jensen_shannon(halves) - jensen_shannon([half.double() for half in halves])) < 1e-6


def test_views_share_one_forward():
    seen = []
    jsd_loss(
        lambda images: seen.append(len(images)) or images,
        logits(),
        torch.arange(6),
        torch.Generator(),
    )
    assert seen == [18]


def test_deepest_is_the_papers():
    assert DEEPEST == 3
