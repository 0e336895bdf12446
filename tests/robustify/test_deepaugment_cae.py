"""DeepAugment's CAE: the network against a forward written from the weights alone, and every
perturbation against what it says.
"""

from collections import Counter

import pytest
import torch
from torch.nn import functional

from stillrobust.robustify.deepaugment import cae
from tests.deepaugment_toys import changed_keys, convolve, only, rng

ELEVEN = set(cae.LAYERS[11:16])
MIDDLE = set(cae.LAYERS[8:14])
CAE_TOUCHED = {
    "flip_outputs": (ELEVEN, {"weight", "bias"}, 1),
    "negate_filters": (MIDDLE, {"weight", "bias"}, 1),
    "zero_filters": (MIDDLE, {"weight", "bias"}, 1),
    "negative_gelu": (set(cae.LAYERS[10:14]), {"weight", "bias"}, 1),
    "amplify_weights": (MIDDLE, {"weight"}, 2),
    "mask_weights": (MIDDLE, {"weight"}, 1),
    "rotate_kernels": (MIDDLE, {"weight"}, 1),
    "negate_weights": (MIDDLE, {"weight"}, 1),
}


@pytest.fixture(scope="module")
def cae_state():
    torch.manual_seed(0)
    return cae.CAE().state_dict()


def test_cae_is_the_published_network(cae_state):
    """Parameters of cae_32x32x32_zero_pad_bin, its 21 layers in order, and a forward from names,
    strides and paddings alone.
    """
    network = cae.CAE()
    network.load_state_dict(cae_state)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_241_859
    assert [name for name, _ in network.named_modules() if f"{name}.weight" in cae_state] == list(
        cae.LAYERS
    )
    images = torch.rand(1, 3, 32, 45, generator=torch.Generator().manual_seed(1))

    def conv(name, x, before=1, after=1, stride=1):
        return convolve(
            cae_state, name, functional.pad(x, (before, after, before, after)), 0, stride
        )

    def doubled(name, x):
        middle = functional.leaky_relu(conv(f"{name}.0", x, 0, 0))
        weights = cae_state[f"{name}.3.weight"], cae_state[f"{name}.3.bias"]
        return functional.conv_transpose2d(functional.pad(middle, (1, 1, 1, 1)), *weights, stride=2)

    x = functional.leaky_relu(conv("e_conv_1.1", images, 1, 2, 2))
    x = functional.leaky_relu(conv("e_conv_2.1", x, 1, 2, 2))
    for number in (1, 2, 3):
        x = x + conv(f"e_block_{number}.4", functional.leaky_relu(conv(f"e_block_{number}.1", x)))
    latent = conv("e_conv_3.0", x, 2, 2).tanh()
    x = doubled("d_up_conv_1", 2.0 * (latent > 0) - 1)
    for number in (1, 2, 3):
        x = x + conv(f"d_block_{number}.4", functional.leaky_relu(conv(f"d_block_{number}.1", x)))
    x = functional.leaky_relu(conv("d_up_conv_3.0", doubled("d_up_conv_2", x), 0, 0))
    expected = conv("d_up_conv_3.3", functional.pad(x, (2, 2, 2, 2), mode="reflect"), 0, 0).tanh()
    with torch.no_grad():
        assert torch.allclose(network.encode(images), latent, atol=1e-5)
        assert torch.allclose(network(images), expected, atol=1e-5)
    assert latent.shape == (1, 32, 8, 11)
    assert expected.shape == (1, 3, 32, 44), "sizes are cut to multiples of four"


@pytest.mark.parametrize("name", cae.WEIGHT_CHANGES)
def test_cae_changes_touch_what_they_say(name, cae_state):
    layers, kinds, most = CAE_TOUCHED[name]
    seen = set()
    for seed in range(40):
        keys = changed_keys(cae_state, only(cae.WEIGHT_CHANGES[name], cae_state, seed))
        parts = {tuple(key.rsplit(".", 1)) for key in keys}
        assert {layer for layer, _ in parts} <= layers, keys
        assert {kind for _, kind in parts} <= kinds
        assert 1 <= len({layer for layer, _ in parts}) <= most
        seen |= {layer for layer, _ in parts}
    assert seen == layers


def cae_pair(name, state, seed):
    after = only(cae.WEIGHT_CHANGES[name], state, seed)
    key = min(changed_keys(state, after) & {f"{layer}.weight" for layer in cae.LAYERS})
    return (
        state[key],
        after[key],
        state[key.replace("weight", "bias")],
        after[key.replace("weight", "bias")],
    )


def test_cae_weights_closed_forms(cae_state):
    for seed in range(8):
        before, after, bias, new_bias = cae_pair("flip_outputs", cae_state, seed)
        assert torch.equal(after, before.flip(0))
        assert torch.equal(new_bias, bias.flip(0))
        before, after, bias, new_bias = cae_pair("negate_filters", cae_state, seed)
        changed = (after != before).flatten(1).any(1)
        assert torch.equal(after[changed], -before[changed])
        assert torch.equal(new_bias[: len(changed)][changed], -bias[: len(changed)][changed])
        assert changed.sum() % 2 == 0, "of 12 draws those that came twice are as before"
        before, after, *_ = cae_pair("zero_filters", cae_state, seed)
        zeroed = (after == 0).flatten(1).all(1)
        assert 10 <= zeroed.sum() <= 25
        assert torch.equal(after[~zeroed], before[~zeroed])
        before, after, *_ = cae_pair("mask_weights", cae_state, seed)
        assert set((after / before).unique().tolist()) in ({0.0, 1.0}, {-1.0, 1.0})
        before, after, *_ = cae_pair("amplify_weights", cae_state, seed)
        assert (after / before).min() >= 1 - 1e-6
        assert (after / before).max() <= 81 + 1e-3, "one layer may be drawn twice"
        before, after, bias, new_bias = cae_pair("negate_weights", cae_state, seed)
        changed = (after != before).flatten(1).any(1)
        assert torch.equal(after[changed], -before[changed])
        assert torch.equal(bias, new_bias)
        assert changed.sum() <= len(before) // 5


def test_cae_negative_gelu(cae_state):
    """Of 25 filters, drawn with replacement, weight and bias: -v Phi(v), as often as a filter was
    drawn; the others stay.
    """

    def negative_gelu(values):
        return -values * 0.5 * (1 + torch.erf(values / 2**0.5))

    shapes = set()
    for seed in range(12):
        before, after, bias, new_bias = cae_pair("negative_gelu", cae_state, seed)
        shapes.add(tuple(before.shape))
        changed = (after != before).flatten(1).any(1)
        assert 10 <= changed.sum() <= 25
        times = [before]
        for _ in range(5):
            times.append(negative_gelu(times[-1]))
        for number in changed.nonzero().flatten():
            fits = [
                k
                for k in range(1, 6)
                if torch.allclose(after[number], times[k][number], rtol=1e-4, atol=1e-9)
            ]
            assert fits, number
            if number < len(bias):
                expected = bias[number]
                for _ in range(fits[0]):
                    expected = negative_gelu(expected)
                assert torch.allclose(new_bias[number], expected, rtol=1e-4, atol=1e-9)
    assert len(shapes) > 1


def test_cae_turns_kernels(cae_state):
    """In the plane of the kernel, by 90, 180 or 270 degrees; never in that of the channels."""
    found = set()
    for seed in range(20):
        before, after, *_ = cae_pair("rotate_kernels", cae_state, seed)
        found |= {k for k in (1, 2, 3) if torch.equal(after, torch.rot90(before, k, (2, 3)))} or {
            "another"
        }
    assert found == {1, 2, 3}


def test_filters_drawn_twice_change_twice(cae_state):
    layer = cae.LAYERS[11]
    after = dict(cae_state)
    cae.change_filters(after, layer, [3, 3, 5], torch.neg)
    assert changed_keys(cae_state, after) == {f"{layer}.weight", f"{layer}.bias"}
    assert torch.equal(after[f"{layer}.weight"][3], cae_state[f"{layer}.weight"][3])
    assert torch.equal(after[f"{layer}.bias"][5], -cae_state[f"{layer}.bias"][5])


def test_one_of_eight(cae_state, monkeypatch):
    called = []
    assert len(cae.WEIGHT_CHANGES) == 8
    monkeypatch.setattr(
        cae,
        "WEIGHT_CHANGES",
        {name: lambda state, rng, name=name: called.append(name) for name in cae.WEIGHT_CHANGES},
    )
    for seed in range(4000):
        cae.perturb_weights(cae_state, rng(seed))
    assert all(abs(count / 4000 - 1 / 8) < 0.02 for count in Counter(called).values())


def test_bits():
    latent = torch.linspace(-1, 1, 9).view(1, 9, 1, 1).expand(1, 9, 200, 200)
    code = cae.binarise(latent, rng())
    assert set(code.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(code.mean((0, 2, 3)), (1 + latent[0, :, 0, 0]) / 2, atol=0.01)
    amplified = cae.amplify_code(torch.ones(1, 4, 100, 100), rng())
    assert amplified.min() >= 3
    assert amplified.max() <= 7


def test_latents():
    latent = torch.rand(1, 32, 20, 24, generator=torch.Generator().manual_seed(3)) + 0.1
    change = {name: function(latent, rng(5)) for name, function in cae.CODE_CHANGES.items()}
    zeroed = (change["zero_places"] == 0)[0]
    assert all(torch.equal(zeroed[0], zeroed[channel]) for channel in range(32)), (
        "the same places in all channels"
    )
    assert abs(zeroed[0].float().mean() - 0.2) < 0.05
    negated = (change["negate_places"] < 0)[0]
    assert torch.equal(negated.all(0), negated.any(0))
    assert abs(negated[0].float().mean() - 0.1) < 0.04
    assert torch.equal(change["permute_channels"][:, 10:], latent[:, 10:])
    assert torch.equal(
        change["permute_channels"].sum(1),
        latent[:, cae_order(change["permute_channels"], latent)].sum(1),
    )
    assert sum(
        torch.equal(change["flip_five_channels"][:, c], latent[:, c]) for c in range(32)
    ) in range(27, 32)
    flips = {tuple(axis for axis in (2, 3) if axis in axes) for axes in ((2,), (3,), (2, 3))}
    found = set()
    for seed in range(30):
        flipped = cae.CODE_CHANGES["flip_all_channels"](latent, rng(seed))
        found |= {axes for axes in flips if torch.equal(flipped, latent.flip(axes))}
    assert found == flips, "rows, columns, or both; the batch's axis does nothing"


def cae_order(permuted, latent):
    return [
        next(c for c in range(32) if torch.equal(permuted[:, k], latent[:, c])) for k in range(32)
    ]


def test_latent_convolutions():
    impulse = torch.zeros(1, 32, 7, 7)
    impulse[0, :, 3, 3] = 1
    assert torch.equal(functional.conv2d(impulse, cae.identity_kernel(impulse), padding=1), impulse)
    alone = torch.zeros(1, 32, 7, 7)
    alone[0, 4, 3, 3] = 1
    spread = cae.CODE_CHANGES["blur_code"](alone, rng())[0]
    assert spread.abs().max() <= 1.1
    assert (spread - alone[0]).abs().max() <= 0.1 + 1e-6
    assert torch.count_nonzero(spread) == 32 * 9
    shifted = cae.CODE_CHANGES["shift_channels"](impulse, rng(2))[0]
    assert torch.equal(shifted.sum((1, 2)), torch.ones(32)), (
        "every channel is shifted, none is lost"
    )
    places = shifted.flatten(1).argmax(1)
    same = (places[1:] == places[:-1]).float().mean()
    assert same > 0.6, (
        "the shift goes on from channel to channel: 0.8 + 0.2 / 9 of neighbours agree"
    )
    added = torch.stack(
        [
            cae.CODE_CHANGES["add_neighbours"](impulse, rng(seed))[0].sum((1, 2))
            for seed in range(40)
        ]
    )
    assert set(added.unique().tolist()) <= {1.0, 2.0}
    assert abs((added == 2).float().mean() - 0.5) < 0.05


def test_cae_choices_are_uniform(monkeypatch):
    """One of nine for every image: the eight on the latent, or the one on the bits."""
    called = []

    def record(name):
        return lambda values, generator: called.append(name) or values

    monkeypatch.setattr(cae, "CODE_CHANGES", {name: record(name) for name in cae.CODE_CHANGES})
    monkeypatch.setattr(cae, "amplify_code", record("amplify_code"))
    monkeypatch.setattr(cae, "binarise", record("bits"))

    class Through:
        encode = decode = staticmethod(lambda values: values)

    stream = rng(1)
    for _ in range(4000):
        cae.distort(Through, torch.zeros(1, 1, 1, 1), stream)
    counts = Counter(called)
    assert counts.pop("bits") == 4000, "always made bits"
    assert len(counts) == 9
    assert all(abs(count / 4000 - 1 / 9) < 0.02 for count in counts.values())
