"""Gaussian and speckle noise training: the images that change, and the strength of the noise."""

import numpy as np
import pytest
import torch

from stillrobust.robustify import build_technique
from stillrobust.tasks.heads import image_tensors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


GREY = torch.full((70, 3, 32, 32), 0.5)


@pytest.mark.parametrize("name", ["gaussian(std=0.05)", "speckle(std=0.1)"])
def test_the_last_half_is_noisy_and_the_rest_bit_identical(name):
    out = build_technique(name).augment_batch(GREY, generator(1))
    assert torch.equal(out[:35], GREY[:35])
    change = (out - GREY)[35:]
    assert abs(change.mean()) < 1e-3
    assert change.std() == pytest.approx(0.05, rel=0.01)  # speckle: 0.1 of a pixel of 0.5
    assert abs(torch.corrcoef(change.transpose(0, 1).flatten(1))[0, 1]) < 0.02
    assert (
        torch.equal(
            build_technique(f"{name[:-1]},share=1.0)").augment_batch(GREY, generator(1))[0], GREY[0]
        )
        is False
    )


def test_speckle_is_proportional_to_the_pixel():
    images = torch.tensor([0.0, 0.2, 0.4]).view(3, 1, 1, 1).expand(3, 3, 64, 64)
    out = build_technique("speckle(std=0.1,share=1.0)").augment_batch(images, generator(2))
    assert torch.equal(out[0], images[0])
    assert (out - images).flatten(1).std(1)[1:].tolist() == pytest.approx([0.02, 0.04], rel=0.03)


@pytest.mark.parametrize(
    ("name", "stds"),
    [
        ("gaussian(std=(0.02, 0.08),share=1.0)", [0.02, 0.08]),
        ("gaussian(share=1.0)", [0.5]),  # the paper's best single one
        # half of .15, .2, .35, .45, .6 on grey of one half
        ("speckle(share=1.0)", [0.075, 0.1, 0.175, 0.225, 0.3]),
    ],
)
def test_one_standard_deviation_is_drawn_for_each_image(name, stds):
    out = build_technique(name).augment_batch(GREY.repeat(4, 1, 1, 1), generator(3))
    # Clipping to 0..1 narrows the spread, so that the middle of the distribution tells which one it
    # was.
    measured = (out - 0.5).flatten(1).abs().median(1).values / 0.6745
    distance = (measured[:, None] - torch.tensor(stds)).abs()
    nearest = distance.argmin(1)
    assert (distance.min(1).values < 0.12 * torch.tensor(stds)[nearest]).all()
    counts = torch.bincount(nearest, minlength=len(stds)) / len(nearest)
    assert (counts - 1 / len(stds)).abs().max() < 0.1


def test_values_are_clipped():
    out = build_technique("gaussian(std=0.5,share=1.0)").augment_batch(GREY, generator(4))
    assert out.min() == 0
    assert out.max() == 1
    # P(|N(0, 0.5)| > 0.5) = 31.7 % lie at a wall
    assert abs(((out == 0) | (out == 1)).float().mean() - 0.3173) < 0.01


@pytest.mark.parametrize("name", ["gaussian", "speckle", "noise2net"])
def test_half_is_changed_however_a_batch_is_grouped(name):
    """In fine-tuning images of one size go through together: of one or three half on average, of
    two always one.
    """
    technique, stream = build_technique(name), generator(5)
    sizes = [(4, 4)] + [(4, 6)] * 2 + [(6, 4)] * 3
    images = [
        np.full((*size, 3), 0.25 + 0.5 * np.random.default_rng(0).random((*size, 3)), np.float32)
        for size in sizes
    ]
    changed = torch.zeros(200, len(sizes))
    for row in changed:
        made = image_tensors(
            images, torch.device("cpu"), lambda batch: technique.augment_batch(batch, stream)
        )
        for place, (before, after) in enumerate(zip(images, made, strict=True)):
            row[place] = not np.array_equal(before, after.permute(1, 2, 0).numpy())
    alone, pair, three = changed[:, :1].sum(1), changed[:, 1:3].sum(1), changed[:, 3:].sum(1)
    assert set(pair.tolist()) == {1}
    assert set(three.tolist()) == {1, 2}
    assert alone.mean() == pytest.approx(1 / 2, abs=0.12)
    assert three.mean() == pytest.approx(3 / 2, abs=0.12)
