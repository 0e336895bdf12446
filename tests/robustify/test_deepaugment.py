"""DeepAugment: EDSR against a forward written from its weights alone, its perturbations, and
trained weights of both networks.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from stillrobust.errors import UserError
from stillrobust.robustify.deepaugment import NETWORKS, edsr, load_pretrained, resize_shorter_side
from stillrobust.robustify.deepaugment.random_tensors import (
    keep_mask_like,
    rotate_quarter_turns,
    signs_like,
    uniform_like,
)
from tests.deepaugment_toys import changed_keys, convolve, enlarging_edsr, only, rng


@pytest.fixture(scope="module")
def edsr_state():
    torch.manual_seed(0)
    return edsr.EDSR().state_dict()


# ---- architectures


def test_edsr_is_the_published_network(edsr_state):
    """Parameters of EDSR-baseline x4, and a forward from the paper's figure and the published names
    alone.
    """
    network = edsr.EDSR()
    network.load_state_dict(edsr_state)
    assert (
        sum(p.numel() for name, p in network.named_parameters() if "mean" not in name) == 1_517_571
    )
    images = 255 * torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(1))
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    head = convolve(edsr_state, "head.0", images - mean)
    x = head
    for block in range(16):
        inner = convolve(edsr_state, f"body.{block}.body.0", x).relu()
        x = x + convolve(edsr_state, f"body.{block}.body.2", inner)
    x = head + convolve(edsr_state, "body.16", x)
    for layer in (0, 2):
        x = functional.pixel_shuffle(convolve(edsr_state, f"tail.0.{layer}", x), 2)
    expected = convolve(edsr_state, "tail.1", x) + mean
    with torch.no_grad():
        assert torch.allclose(network(images), expected, atol=1e-4)
    assert expected.shape == (1, 3, 32, 40)


def test_edsr_of_known_weights_repeats_pixels():
    images = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        out = enlarging_edsr()(255 * images) / 255
    assert torch.allclose(out, images.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-5)


def test_draws():
    ones = torch.ones(200, 500)
    assert abs(uniform_like(ones, rng()).mean() - 0.5) < 0.005
    assert abs((keep_mask_like(ones, rng(), 0.05) == 0).float().mean() - 0.05) < 0.003
    assert abs((signs_like(ones, rng(), 0.025) == -1).float().mean() - 0.025) < 0.002
    kernel = torch.arange(9.0).view(1, 1, 3, 3)
    turned = [rotate_quarter_turns(kernel, rng(seed)) for seed in range(30)]
    assert len({tuple(turn.flatten().tolist()) for turn in turned}) == 3, "90, 180 and 270 degrees"
    assert not any(torch.equal(turn, kernel) for turn in turned)
    assert {tuple(turn.flatten().tolist()) for turn in turned} == {
        (2, 5, 8, 1, 4, 7, 0, 3, 6),
        (8, 7, 6, 5, 4, 3, 2, 1, 0),
        (6, 3, 0, 7, 4, 1, 8, 5, 2),
    }
    for seed in range(6):
        again = kernel
        for _ in range(4):
            again = rotate_quarter_turns(again, rng(seed))
        assert torch.equal(again, kernel), "turned four times alike"


# ---- EDSR: weights

EARLY = {f"body.{block}.body" for block in (0, 3, 6, 9)}
TOUCHED = {
    "flip_outputs": (EARLY, {"0.weight", "0.bias", "2.weight", "2.bias"}, 4),
    "negate_first": ({f"body.{block}.body" for block in (1, 4, 7)}, {"0.weight", "0.bias"}, 2),
    "zero_first": (EARLY, {"0.weight", "0.bias"}, 2),
    "negative_gelu": (EARLY, {"0.weight", "2.weight"}, 2),
    "multiply_by_cross": (EARLY, {"0.weight"}, 1),
    "multiply_by_square": (EARLY, {"0.weight"}, 1),
    "amplify_second": (EARLY, {"2.weight"}, 1),
    "mirror": (EARLY, {"0.weight", "2.weight"}, 2),
    "shift_and_sum": ({f"body.{block}.body" for block in (1, 5, 9)}, {"0.weight"}, 1),
    "random_filter": (EARLY, {"0.weight"}, 1),
    "dirichlet_filter": ({f"body.{block}.body" for block in (1, 5, 9)}, {"2.weight"}, 1),
    "noise_second": ({f"body.{block}.body" for block in range(15)}, {"2.weight"}, 1),
    "rotate_kernels": ({f"body.{block}.body" for block in range(15)}, {"0.weight", "2.weight"}, 5),
    "random_signs": ({f"body.{block}.body" for block in range(15)}, {"0.weight"}, 5),
    "random_zeros": ({f"body.{block}.body" for block in range(15)}, {"0.weight"}, 5),
    "negate_filters": ({f"body.{block}.body" for block in range(15)}, {"0.weight"}, 5),
    "keep_largest": ({f"body.{block}.body" for block in range(15)}, {"0.weight", "2.weight"}, 5),
}
"""Change -> the blocks it chooses from, what it touches there, and how many tensors at most."""


@pytest.mark.parametrize("name", edsr.WEIGHT_CHANGES)
def test_edsr_changes_touch_what_they_say(name, edsr_state):
    blocks, kinds, most = TOUCHED[name]
    seen = set()
    for seed in range(25):
        keys = changed_keys(edsr_state, only(edsr.WEIGHT_CHANGES[name], edsr_state, seed))
        parts = {tuple(key.rsplit(".", 2)) for key in keys}
        assert {part[0] for part in parts} <= blocks, keys
        assert {f"{layer}.{kind}" for _, layer, kind in parts} <= kinds, keys
        assert 1 <= len(keys) <= most
        if most != 5:
            assert len(keys) == most
        seen |= {part[0] for part in parts}
    assert seen == blocks if len(blocks) <= 4 else len(seen) >= 12


def pairs(name, state, seed=0):
    """(before, after) of every weight that a change touched."""
    after = only(edsr.WEIGHT_CHANGES[name], state, seed)
    return [
        (state[key], after[key])
        for key in sorted(changed_keys(state, after))
        if key.endswith("weight")
    ]


def test_edsr_weights_closed_forms(edsr_state):
    state = edsr_state
    twice = only(
        edsr.WEIGHT_CHANGES["flip_outputs"], only(edsr.WEIGHT_CHANGES["flip_outputs"], state, 3), 3
    )
    assert not changed_keys(state, twice), "flipped twice is as before"
    for before, after in pairs("flip_outputs", state):
        assert torch.equal(after, before.flip(0))
    for before, after in pairs("negate_first", state):
        assert torch.equal(after, -before)
    for before, after in pairs("negative_gelu", state):
        assert torch.allclose(after, -before * 0.5 * (1 + torch.erf(before / 2**0.5)), atol=1e-7)
    (cross,) = pairs("multiply_by_cross", state)
    assert torch.equal(cross[1][..., 1, 1], -4 * cross[0][..., 1, 1])
    assert torch.count_nonzero(cross[1][..., ::2, ::2]) == 0
    (square,) = pairs("multiply_by_square", state)
    assert torch.equal(square[1][..., 1, 1], 8 * square[0][..., 1, 1])
    assert torch.equal(square[1][..., 0, :], -square[0][..., 0, :])
    first, second = pairs("mirror", state)
    assert torch.equal(first[1][..., 0], first[0][..., 2])
    assert torch.equal(second[1], -second[0])
    for _ in range(3):
        for before, after in pairs("random_signs", state):
            assert torch.equal(after.abs(), before.abs())
    for before, after in pairs("random_zeros", state, 1):
        assert set((after / before).unique().tolist()) == {0.0, 1.0}
    for before, after in pairs("keep_largest", state):
        kept = after != 0
        assert torch.equal(kept.flatten(2).sum(2), torch.ones(64, 64, dtype=torch.long)), (
            "one value of each kernel is left"
        )
        assert torch.equal(after[kept], before.flatten(2).amax(2).flatten())


def test_edsr_turns_kernels_or_channels(edsr_state):
    """A weight that was drawn once is turned by 90, 180 or 270 degrees in the plane (2, 3) or (0,
    1), all six alike.
    """
    found = Counter()
    for seed in range(40):
        for before, after in pairs("rotate_kernels", edsr_state, seed):
            turns = [
                (k, axes)
                for k in (1, 2, 3)
                for axes in ((2, 3), (0, 1))
                if torch.equal(after, torch.rot90(before, k, axes))
            ]
            found[turns[0] if turns else "twice"] += 1
    twice = found.pop("twice", 0)
    assert twice < 0.2 * found.total(), "of five draws among thirty weights few meet"
    assert len(found) == 6
    assert all(abs(count / found.total() - 1 / 6) < 0.08 for count in found.values())


def test_edsr_weights_distributions(edsr_state):
    factors = [
        (after / before)
        for seed in range(40)
        for before, after in pairs("amplify_second", edsr_state, seed)
    ]
    assert min(float(factor.min()) for factor in factors) >= 1, "the published slip: never below 1"
    strengths = np.array([float(factor.mean() - 1) for factor in factors])
    assert max(strengths) < 2
    assert abs(strengths.mean() - 4 / 2 / 2) < 0.3, "4 E[u] E[r] = 1"
    (noise,) = pairs("noise_second", edsr_state)
    difference = noise[1] - noise[0]
    assert difference.abs().max() <= 0.5 + 1e-6
    assert abs(difference.var() - 1 / 12) < 0.002
    negated = [
        float((after[:, 0, 0, 0] != before[:, 0, 0, 0]).float().mean())
        for seed in range(10)
        for before, after in pairs("negate_filters", edsr_state, seed)
    ]
    assert (
        abs(np.mean([share for share in negated if share < 0.55]) - (1 - (63 / 64) ** 32)) < 0.03
    ), "32 of 64 with replacement"


def test_edsr_kernel_convolutions(edsr_state):
    (sums,) = pairs("shift_and_sum", edsr_state)
    assert torch.allclose(sums[1], sums[1][:, :1].expand_as(sums[1]), atol=1e-6), (
        "every input channel gets the same sum"
    )
    ones = {key: torch.ones_like(value) for key, value in edsr_state.items()}
    (flat,) = pairs("shift_and_sum", ones)
    assert flat[1].abs().max() <= 64
    assert torch.equal(flat[1], flat[1].round()), "signed sums of ones"
    # Dirichlet kernels sum to 1, so a constant 3x3 kernel keeps its value in the middle, where no
    # border is near.
    (blurred,) = pairs("dirichlet_filter", ones)
    assert torch.allclose(blurred[1][..., 1, 1], torch.full((64, 64), 64.0), atol=1e-3)
    # (2 U u - 1)/6: with u and U uniform its mean is (2/4 - 1)/6 = -1/12, so the middle of 64 x 9
    # ones has -48 on average.
    middles = [pairs("random_filter", ones, seed)[0][1][..., 1, 1].mean() for seed in range(60)]
    assert abs(np.mean(middles) + 48) < 8
    assert min(middles) > -96 - 1e-3, "no tap is below -1/6"
    assert max(middles) < 1


def test_a_zeroed_block_adds_a_bias(edsr_state):
    network = edsr.EDSR()
    network.load_state_dict(only(edsr.WEIGHT_CHANGES["zero_first"], edsr_state, 4))
    (key,) = {name.rsplit(".", 2)[0] for name in changed_keys(edsr_state, network.state_dict())}
    features = torch.randn(1, 64, 6, 6)
    with torch.no_grad():
        out = network.body[int(key.split(".")[1])](features)
    assert torch.allclose(out, features + edsr_state[f"{key}.2.bias"].view(1, -1, 1, 1), atol=1e-6)


def test_three_of_seventeen(edsr_state, monkeypatch):
    called = []
    assert len(edsr.WEIGHT_CHANGES) == 17
    monkeypatch.setattr(
        edsr,
        "WEIGHT_CHANGES",
        {name: lambda state, rng, name=name: called.append(name) for name in edsr.WEIGHT_CHANGES},
    )
    for seed in range(3000):
        assert edsr.perturb_weights(edsr_state, rng(seed)) == edsr_state
        assert len(called) == 3 * (seed + 1)
    assert all(abs(count / 9000 - 1 / 17) < 0.01 for count in Counter(called).values())
    assert any(len(set(called[i : i + 3])) < 3 for i in range(0, 9000, 3)), "with replacement"


# ---- EDSR: features


def test_edsr_features():
    features = torch.rand(1, 64, 40, 40) + 0.1
    assert torch.equal(edsr.FEATURE_CHANGES["keep_features"](features, rng()), features)
    dropped = edsr.FEATURE_CHANGES["drop_features"](features, rng())
    assert abs((dropped == 0).float().mean() - 0.05) < 0.003
    flipped = edsr.FEATURE_CHANGES["flip_signs"](features, rng())
    assert torch.equal(flipped.abs(), features)
    assert abs((flipped < 0).float().mean() - 0.025) < 0.002
    copied = edsr.FEATURE_CHANGES["copy_channels"](features, rng())
    differing = [
        channel
        for channel in range(64)
        if not torch.equal(copied[:, channel], features[:, channel])
    ]
    assert 1 <= len(differing) <= 5
    originals = [features[:, channel] for channel in range(64)]
    assert all(
        any(torch.equal(copied[:, channel], original) for original in originals)
        for channel in differing
    )
    lost = [
        o for o in originals if not any(torch.equal(o, copied[:, channel]) for channel in range(64))
    ]
    assert lost, "the published slip: a channel is copied, not swapped"


@pytest.fixture(scope="module")
def body(edsr_state):
    network = edsr.EDSR()
    network.load_state_dict(edsr_state)
    return network.body.requires_grad_(False)


@pytest.mark.parametrize("name", edsr.BODY_CHANGES)
def test_edsr_bodies(name, body):
    features = torch.randn(1, 64, 6, 8)
    cut = body[:5](features)
    outputs = {
        tuple(edsr.BODY_CHANGES[name](body, features, rng(seed)).flatten()[:5].tolist())
        for seed in range(24)
    }
    choices = {
        "negate_within": [body[5:](-cut)],
        "activate_within": [body[5:](cut.relu()), body[5:](functional.gelu(cut))],
        "flip_within": [body[5:](cut.flip((1, 2))), body[5:](cut.flip((1, 3)))],
        "run_last_kept": [body[number](features) for number in (16, 15, 14, 13)],
        "run_body": [body(features)],
    }[name]
    allowed = {tuple(choice.flatten()[:5].tolist()) for choice in choices}
    assert outputs <= allowed
    assert len(outputs) >= min(len(allowed), 2)


def test_edsr_choices_are_uniform(monkeypatch):
    seen = []

    def record(images, generator, first, within):
        seen.append((first, within))
        return images

    assert edsr.distort(record, torch.full((1, 3, 2, 2), 0.5), rng()).unique() == 0.5
    stream = rng(1)
    for _ in range(4000):
        edsr.distort(record, torch.zeros(1, 3, 1, 1), stream)
    assert len(Counter(seen)) == 4 * 5
    assert all(abs(count / 4000 - 1 / 20) < 0.015 for count in Counter(seen).values())


# ---- trained weights, or none


@pytest.fixture(scope="module")
def enlarging(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "edsr.pt"
    torch.save(enlarging_edsr().state_dict(), path)
    return path


def test_trained_weights_are_taken(enlarging):
    pretrained = load_pretrained("edsr", enlarging)
    assert pretrained.sha256 == hashlib.sha256(enlarging.read_bytes()).hexdigest()
    before = {key: value.clone() for key, value in pretrained.state.items()}
    for seed in range(5):
        pretrained.perturb(rng(seed))
    assert not changed_keys(before, pretrained.state)


@pytest.mark.parametrize(("name", "decibels"), [("edsr", 25), ("cae", 20)])
def test_published_weights_give_a_photograph_back(name, decibels):
    """PSNR of what the unperturbed network makes: of EDSR to the bicubic enlargement, of the CAE to
    the photograph.
    """
    variable = f"STILLROBUST_{name.upper()}_WEIGHTS"
    if variable not in os.environ:
        pytest.skip(f"{variable} names no file; the published weights: {NETWORKS[name].source}")
    photograph = Image.fromarray(pytest.importorskip("skimage.data").astronaut())
    given = resize_shorter_side(photograph, NETWORKS[name].side)
    made = NETWORKS[name].plain(load_pretrained(name, Path(os.environ[variable])).module, given)
    target = functional.interpolate(given, made.shape[2:], mode="bicubic").clamp(0, 1)
    assert -10 * float((made.clamp(0, 1) - target).square().mean().log10()) > decibels


def test_every_perturbation_begins_with_the_pretrained_weights():
    network = load_pretrained("cae", None, allow_untrained=True)
    for seed in (0, 1):
        network.perturb(rng(seed))
    expected = network.network.perturb_weights(network.state, rng(1))
    assert not changed_keys(expected, network.module.state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_untrained_weights_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="random ones leave nothing"):
        load_pretrained(name, None)
    torch.manual_seed(0)
    torch.save(NETWORKS[name].build().state_dict(), tmp_path / "random.pt")
    with pytest.raises(UserError, match="correlation"):
        load_pretrained(name, tmp_path / "random.pt")
    assert load_pretrained(name, None, allow_untrained=True).sha256 == ""


def test_foreign_weights_are_refused(tmp_path, enlarging):
    state = torch.load(enlarging, weights_only=True)
    state["body.99.weight"] = state.pop("body.3.body.0.bias")
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"body\.3\.body\.0\.bias.*body\.99\.weight"):
        load_pretrained("edsr", tmp_path / "other.pt")
    with pytest.raises(UserError, match="there is nothing"):
        load_pretrained("edsr", tmp_path / "none.pt")
    with pytest.raises(UserError, match="Did you mean: edsr"):
        load_pretrained("edrs", enlarging)


def test_resize_is_torchvisions():
    from torchvision.transforms import functional as reference

    image = Image.fromarray(rng().integers(0, 256, (45, 71, 3)).astype(np.uint8))
    for side in (20, 128):
        expected = reference.to_tensor(reference.resize(image, side))
        assert torch.equal(resize_shorter_side(image, side)[0], expected)
        tall = image.transpose(Image.Transpose.ROTATE_90)
        assert (
            resize_shorter_side(tall, side).shape[2:]
            == reference.to_tensor(reference.resize(tall, side)).shape[1:]
        )


def test_an_undisturbed_network_gives_the_image_back(enlarging, monkeypatch):
    """Distorting with nothing to distort: the image, brought to 128 and repeated four times, in 8
    bits.
    """
    monkeypatch.setattr(edsr, "FEATURE_CHANGES", {"keep_features": edsr.keep_features})
    monkeypatch.setattr(edsr, "BODY_CHANGES", {"run_body": edsr.run_body})
    image = rng().integers(0, 256, (128, 128, 3)).astype(np.uint8)
    out = load_pretrained("edsr", enlarging).distort(Image.fromarray(image), rng())
    assert out.shape == (512, 512, 3)
    expected = image.repeat(4, 0).repeat(4, 1).astype(int)
    assert np.abs(out - expected).max() <= 1, (
        "values are cut off to 8 bits, as published, not rounded"
    )
