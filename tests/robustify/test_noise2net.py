"""Noise2Net: each image passes its own network, and the weight sets the size of the change."""

import pytest
import torch

from stillrobust.errors import UserError
from stillrobust.robustify import build_technique
from stillrobust.robustify.noise2net import (
    KERNELS,
    MEAN,
    STD,
    apply_random_networks,
    distort_batch,
    normalise_channels,
    random_convolution,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=4, height=32, width=32, seed=0):
    coarse = torch.rand(count, 3, 5, 5, generator=generator(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def test_every_image_has_a_network_of_its_own():
    batch = images()
    other = batch.clone()
    other[2] = images(1, seed=9)[0]
    first, second = (apply_random_networks(given, generator(), 0.5) for given in (batch, other))
    kept = [0, 1, 3]
    assert (first[kept] - second[kept]).abs().max() < 1e-5
    assert (first[2] - second[2]).abs().max() > 0.1
    same = apply_random_networks(batch[:1].expand(2, -1, -1, -1), generator(), 0.5)
    assert (same[0] - same[1]).abs().max() > 0.1, "one image twice meets two networks"


def test_weight_zero_changes_nothing():
    assert torch.equal(apply_random_networks(images(), generator(), 0.0), images())


@pytest.mark.parametrize("weight", [0.375, 0.5, 0.75])
def test_the_change_is_about_twice_the_weight(weight):
    """Four blocks that each add ``weight`` times something of variance 1, nearly independent of
    each other.
    """
    batch = torch.randn(16, 3, 32, 32, generator=generator(1))
    change = apply_random_networks(batch, generator(2), weight) - batch
    assert abs(change.square().mean().sqrt() / (2 * weight) - 1) < 0.15


def test_only_the_first_half_changes():
    batch = images(6)
    out = build_technique("noise2net").augment_batch(batch, generator())
    assert torch.equal(out[3:], batch[3:])
    assert all((out[i] - batch[i]).abs().max() > 0.01 for i in range(3))


def test_it_acts_on_normalised_images():
    """A change of 2 e standard deviations of ImageNet is one of 2 e · 0.226 in 0..1."""
    batch = images(32)
    change = distort_batch(batch, generator(3), 0.5) - batch
    scale = torch.tensor(STD).view(1, 3, 1, 1)
    assert 2 * 0.25 * 0.8 < (change / scale).square().mean().sqrt() < 2 * 0.5 * 1.2


def test_weights_are_those_of_a_new_convolution():
    """U(±1/√(inputs · kernel²)): its variance is a third of the square of that; read off with an
    impulse.
    """
    impulse = torch.zeros(1, 2000 * 16, 9, 9)
    impulse[:, ::16, 4, 4] = 1
    out = random_convolution(impulse, 2000, 16, 3, 2, generator(), bias=False)
    taps = out[..., 2:7:2, 2:7:2]
    assert torch.count_nonzero(out) == torch.count_nonzero(taps), (
        "dilated by two, and nothing else is reached"
    )
    limit = (16 * 9) ** -0.5
    assert taps.abs().max() <= limit
    assert abs(taps.var() / (limit**2 / 3) - 1) < 0.01


def test_normalisation_is_batch_norms_in_training():
    features = torch.randn(1, 6, 8, 8, generator=generator()) * 3 + 1
    assert torch.allclose(
        normalise_channels(features), torch.nn.BatchNorm2d(6).train()(features), atol=1e-5
    )


def test_any_size_and_no_gradient():
    for height, width in ((1, 1), (5, 17), (64, 48)):
        batch = images(2, height, width).requires_grad_()
        out = distort_batch(batch, generator(), 0.75, share=0.5)
        assert out.shape == batch.shape
        out.sum().backward()
        assert batch.grad[0].abs().max() == 0
        assert torch.equal(batch.grad[1], torch.ones_like(batch.grad[1]))


def test_networks_have_as_many_parameters_as_published(monkeypatch):
    """Per image 2,456 and, for each of twelve convolutions, 272 (1x1) or 2,320 (3x3); 20,056 of one
    draw of the official code.
    """
    counted = 0
    plain = torch.rand

    def count(shape, **settings):
        nonlocal counted
        counted += int(torch.Size(shape).numel())
        return plain(shape, **settings)

    batch = images(1)
    monkeypatch.setattr(torch, "rand", count)
    apply_random_networks(batch, generator(), 0.5)
    # BatchNorm's own 2 x (64 + 3 x 16 + 3) a block stay at 1 and 0 and are not drawn here
    drawn = counted + 4 * 2 * (64 + 3 * 16 + 3)
    assert any(2456 + 272 * ones + 2320 * (12 - ones) == drawn for ones in range(13))
    assert 2456 + 272 * 5 + 2320 * 7 == 20_056
    assert KERNELS == (1, 3)
    assert len(MEAN) == len(STD) == 3


def test_refusals():
    with pytest.raises(UserError, match="epsilon above 0"):
        build_technique("noise2net(epsilon=0)")
    with pytest.raises(UserError, match="share"):
        build_technique("noise2net(share=2.0)")
