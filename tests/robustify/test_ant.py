"""Adversarial noise training: the projection against a sort and a bisection, the generator's closed
forms, the batch's parts.
"""

import copy
import math
import socket

import pytest
import torch
from benchmarks import plain_robustify as plain
from lightning_fabric import Fabric
from torch import distributed, nn
from torch.nn import functional

from stillrobust.errors import UserError
from stillrobust.robustify import build_technique
from stillrobust.robustify.ant import AdversarialNoise, NoiseGenerator, project
from stillrobust.robustify.noise import add_noise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(count=2, size=24, seed=0):
    coarse = torch.rand(count, 3, 5, 5, generator=generator(seed))
    return functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)


def changed(out, images):
    return (out - images).flatten(1).norm(dim=1)


# ---- projection


@pytest.mark.parametrize("epsilon", [1.0, 20.0, 60.0, 135.0])
def test_the_clipped_norm_is_epsilon(epsilon):
    images = photos(2, 224)
    noise = torch.randn(images.shape, generator=generator(1))
    out = project(images, noise, epsilon)
    assert torch.allclose(
        changed(out.double(), images.double()), torch.tensor(epsilon).double(), rtol=1e-5
    )
    assert out.min() >= 0
    assert out.max() <= 1
    assert (project(images, 7.5 * noise, epsilon) - out).abs().max() < 1e-5, (
        "the noise's own size does not count"
    )


@pytest.mark.parametrize("epsilon", [0.5, 5.0, 15.0, 19.0])
def test_newton_is_sort_is_bisection(epsilon):
    images = photos(3, 24).double()
    noise = torch.randn(images.shape, generator=generator(2), dtype=torch.float64) ** 3
    ours = project(images, noise, epsilon)
    assert (ours - plain.project_by_sort(images, noise, epsilon)).abs().max() < 5e-6
    for image, one, result in zip(images, noise, ours, strict=True):
        bisected = (image + plain.norm_by_bisection(image, one, epsilon) * one).clamp(0, 1)
        assert (result - bisected).abs().max() < 5e-6
    single = project(images.float(), noise.float(), epsilon)
    assert (single - ours).abs().max() < 5e-6


def test_beyond_the_box_it_is_the_corner():
    images = photos(2, 8)
    noise = torch.randn(images.shape, generator=generator(3))
    corner = (noise >= 0).float()
    assert torch.equal(project(images, noise, 100.0), corner)
    nothing = project(images, torch.zeros_like(noise), 3.0)
    assert torch.equal(nothing, images), "no noise has no direction, and gives no NaN"


def test_noise_that_is_not_finite_ends_the_search_and_leaves_the_other_images():
    images, noise = photos(3), torch.randn(3, 3, 24, 24, generator=generator())
    noise[1] = math.nan
    noise[2, 0, 0, 0] = math.inf
    out = project(images, noise, 3.0)
    assert torch.equal(out[:1], project(images[:1], noise[:1], 3.0))
    assert not out[1].isfinite().any()


def test_one_value_by_hand():
    """x = (0.5, 0.9, 0), noise (1, 1, 0), epsilon 0.3: the second meets its wall at 0.1, the first
    moves sqrt(0.09 - 0.01).
    """
    images = torch.tensor([0.5, 0.9, 0.0]).view(1, 3, 1, 1)
    noise = torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1)
    out = project(images, noise, 0.3).flatten()
    assert torch.allclose(out, torch.tensor([0.5 + math.sqrt(0.08), 1.0, 0.0]), atol=1e-6)


def test_gradient_is_exact():
    images = photos(2, 6).double()
    noise = torch.randn(
        images.shape, generator=generator(4), dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda one: project(images, one, 3.0), (noise,))


def test_gaussian_noise_of_one_half_has_the_default_norm():
    """Clipped, on photographs 134 to 137 as measured with the official code; unclipped 194."""
    data = pytest.importorskip("skimage.data")
    for picture in (data.astronaut, data.chelsea, data.coffee, data.rocket):
        image = torch.from_numpy(picture()[:224, :224].copy()).permute(2, 0, 1)[None].float() / 255
        noisy = add_noise(image, generator(5), (0.5,))
        assert 130 < changed(noisy, image) < 140
    assert 0.5 * math.sqrt(3 * 224 * 224) == pytest.approx(194, abs=0.1)


# ---- the generator


@pytest.mark.parametrize(("kernel", "parameters"), [(1, 983), (3, 4183)])
def test_generator_begins_as_white_noise(kernel, parameters):
    network = NoiseGenerator(kernel)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    network.initialise(generator(1))
    z = torch.randn(8, 3, 128 + kernel - 1, 128 + kernel - 1, generator=generator(2))
    noise = network(z).detach()
    assert noise.shape == (8, 3, 128, 128)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    correlation = torch.corrcoef(noise.transpose(0, 1).flatten(1)) - torch.eye(3)
    assert correlation.abs().max() < 0.01  # 131,072 values: 0.003 standard error
    middle = noise[..., 1:-1, 1:-1]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        moved = noise[..., 1 + down : 127 + down, 1 + across : 127 + across]
        assert abs((middle * moved).mean()) < 0.01, (down, across)


@pytest.mark.parametrize(("kernel", "reach"), [(1, 1), (3, 9)])
def test_generator_sees_its_kernel_and_no_more(kernel, reach):
    network = NoiseGenerator(kernel)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(3)))
    z = torch.randn(1, 3, 9 + kernel - 1, 9 + kernel - 1, generator=generator(4))
    other = z.clone()
    middle = 4 + kernel // 2
    other[0, :, middle, middle] += 1
    moved = (network(other) != network(z)).any(1)[0]
    assert moved.sum() == reach
    assert moved[4, 4]


# ---- the loop


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def started(epochs, iterations=2, kernel=1):
    adversary = AdversarialNoise(torch.device("cpu"), kernel=kernel, iterations=iterations)
    model = classifier().train()
    for epoch in range(epochs):
        adversary.begin_epoch(epoch, model, [(photos(4), torch.arange(4))] * 5, generator(epoch))
    return adversary, model


@pytest.mark.parametrize("kernel", [1, 3])
def test_parts_of_the_batch(kernel, monkeypatch):
    """70 images: in the first epoch 35 noisy, later 21 by the generator, 7 and 7 by two stored
    ones; 35 stay bit-identical.
    """
    images = photos(70, 12)
    adversary, _ = started(1, kernel=kernel)
    sizes = []
    inner = adversary._noisy
    monkeypatch.setattr(
        adversary, "_noisy", lambda part, *rest: (sizes.append(len(part)), inner(part, *rest))[1]
    )
    mixed = adversary.mix(images, generator(1))
    assert sizes == [35]
    assert torch.equal(mixed[35:], images[35:])
    norms = changed(mixed[:35], images[:35])
    assert torch.allclose(norms, torch.tensor(135 * math.sqrt(3 * 12 * 12 / 150528)), rtol=1e-4)
    model = classifier()
    for epoch in (1, 2):
        adversary.begin_epoch(epoch, model, [(images[:4], torch.arange(4))], generator(epoch))
    sizes.clear()
    monkeypatch.setattr(
        adversary, "_noisy", lambda part, *rest: (sizes.append(len(part)), inner(part, *rest))[1]
    )
    mixed = adversary.mix(images, generator(2))
    assert sizes == [21, 7, 7]
    assert torch.equal(mixed[35:], images[35:])
    assert (changed(mixed[:35], images[:35]) > 1).all()


def test_a_step_touches_the_generator_alone():
    adversary, model = started(1)
    images, labels = photos(8), torch.arange(8) % 4
    model[1].eval()  # a frozen BatchNorm within a training model
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    weights = copy.deepcopy(adversary.network.state_dict())
    mixed = adversary.step(model, images, labels, generator(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert any(
        not torch.equal(value, weights[name])
        for name, value in adversary.network.state_dict().items()
    )
    assert not mixed.requires_grad
    # the model's step reaches no generator
    functional.cross_entropy(model(mixed), labels).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_every_epoch_has_a_fresh_generator_and_keeps_it():
    untrained, _ = started(2, iterations=0)  # what an epoch begins with: N(0, 0.01^2), biases 0
    for stored in untrained.pool:
        for name, value in stored.items():
            assert not value.any() if name.endswith("bias") else 0.005 < value.std() < 0.02
    adversary, model = started(3)
    assert len(adversary.pool) == 3
    names = list(adversary.network.state_dict())
    assert not torch.equal(adversary.pool[0][names[0]], adversary.pool[1][names[0]])
    assert all(
        torch.equal(adversary.pool[2][name], value)
        for name, value in adversary.network.state_dict().items()
    )
    assert adversary.optimiser.param_groups[0]["lr"] == 1e-4
    adversary.step(model, photos(4), torch.arange(4), generator(1))
    stored = adversary.pool[2][names[0]]
    assert not torch.equal(stored, adversary.network.state_dict()[names[0]]), (
        "trained on in the epoch, the stored one is not"
    )
    # done already, as after a resume within the epoch
    adversary.begin_epoch(2, model, iter(()), generator(9))
    assert len(adversary.pool) == 3


def test_rates_of_the_generator(monkeypatch):
    """5e-4 for a fresh one before its epoch, 1e-4 in the epoch (game-of-noise 2989b43)."""
    rates = []
    learn = AdversarialNoise._learn

    def noted(self, *arguments):
        rates.append(self.optimiser.param_groups[0]["lr"])
        learn(self, *arguments)

    monkeypatch.setattr(AdversarialNoise, "_learn", noted)
    adversary, model = started(1, iterations=2)
    adversary.step(model, photos(4), torch.arange(4), generator(1))
    assert rates == [5e-4, 5e-4, 1e-4]


def test_resumes_in_the_same_bits():
    adversary, model = started(2)
    images, labels = photos(8), torch.arange(8) % 4
    adversary.step(model, images, labels, generator(1))
    kept = {name: value.clone() for name, value in adversary.state_dict().items()}
    assert all(isinstance(value, torch.Tensor) for value in kept.values())
    expected = [adversary.step(model, images, labels, generator(seed)) for seed in (2, 3)]
    other = AdversarialNoise(torch.device("cpu"))
    other.load_state_dict(kept)
    assert other.epoch == 1
    assert len(other.pool) == 2
    for seed, batch in zip((2, 3), expected, strict=True):
        assert torch.equal(other.step(model, images, labels, generator(seed)), batch)


def test_learned_noise_harms_a_trained_model_more_than_gaussian_noise():
    """Of equal norm.

    The model tells classes by small shades of colour: noise of the right colour harms it, white
    noise little.
    """
    torch.manual_seed(0)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), *pooled
    )
    shades = torch.tensor([[0.4, 0.4, 0.4], [0.6, 0.4, 0.4], [0.4, 0.6, 0.4], [0.4, 0.4, 0.6]])
    labels = torch.arange(64) % 4

    def batch(seed):
        texture = 0.05 * torch.randn(64, 3, 16, 16, generator=generator(seed))
        return (shades[labels][..., None, None] + texture).clamp(0, 1)

    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        optimiser.zero_grad()
        functional.cross_entropy(model(batch(step)), labels).backward()
        optimiser.step()
    assert (model(batch(100)).argmax(1) == labels).float().mean() > 0.95
    adversary = AdversarialNoise(torch.device("cpu"), epsilon=60.0, iterations=150)
    adversary.begin_epoch(0, model, ((batch(step), labels) for step in range(150)), generator(1))
    white = NoiseGenerator(1)
    white.initialise(generator(2))
    harm = []
    model.requires_grad_(False)
    for state in (adversary.pool[0], white.state_dict()):
        noisy = adversary._noisy(batch(200), generator(3), state)
        harm.append(float(functional.cross_entropy(model(noisy), labels).detach()))
    assert harm[0] > 1.2 * harm[1]


def test_stays_in_float32_under_autocast():
    adversary, model = started(1)
    with torch.autocast("cpu", torch.bfloat16):
        noisy = adversary._noisy(photos(4), generator(1))
        mixed = adversary.step(model, photos(4), torch.arange(4), generator(2))
    assert noisy.dtype == mixed.dtype == torch.float32
    # the step has moved on
    assert torch.equal(noisy.detach(), adversary._noisy(photos(4), generator(1)).detach()) is False
    assert torch.allclose(
        changed(noisy, photos(4)), torch.tensor(135 * math.sqrt(3 * 24 * 24 / 150528)), rtol=1e-5
    )


def test_the_generator_learns_in_the_precision_of_the_model():
    """Under bf16-mixed the model's convolutions are half in the generator's step as well; gradients
    are whole.
    """
    adversary, model = started(1)
    seen = []
    model[0].register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    wrapped = Fabric(accelerator="cpu", precision="bf16-mixed").setup(model)
    assert adversary.step(wrapped, photos(4), torch.arange(4), generator(1)).dtype == torch.float32
    assert seen == [torch.bfloat16]
    adversary.step(model, photos(4), torch.arange(4), generator(1))
    assert seen == [torch.bfloat16, torch.float32], "not wrapped, it is whole"
    assert all(
        parameter.grad.dtype == torch.float32 for parameter in adversary.network.parameters()
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ant(kernel=5)", "kernel of ant got 5"),
        ("ant(epsilon=0)", "epsilon of ant above 0"),
        ("ant(epsilon=1000.0)", "at most 388"),
        ("ant(iterations=-1)", "iterations of ant at least 0"),
        ("ant+ant(kernel=3)", "two auxiliary networks"),
    ],
)
def test_a_wrong_argument_is_one_sentence(spec, words):
    with pytest.raises(UserError) as caught:
        build_technique(spec)
    assert words in str(caught.value)


def test_eight_bit_images_and_a_step_before_the_epoch_are_refused():
    adversary = build_technique("ant(kernel=3)").auxiliary_network(torch.device("cpu"))
    with pytest.raises(UserError, match="begin_epoch before step"):
        adversary.step(classifier(), photos(4), torch.arange(4), generator())
    adversary, model = started(1)
    with pytest.raises(UserError, match="divide"):
        adversary.step(model, 255 * photos(4), torch.arange(4), generator())


def test_a_model_that_diverged_is_one_sentence_and_no_nan_in_the_generator():
    adversary, model = started(1)
    for parameter in model.parameters():
        parameter.data.fill_(math.nan)
    labels = torch.zeros(2, dtype=torch.long)
    with pytest.raises(UserError, match="became nan; lower the learning rate"):
        adversary.step(model, photos(2), labels, generator())
    with pytest.raises(UserError, match="became nan; lower the learning rate"):
        adversary.begin_epoch(1, model, [(photos(2), labels)], generator())
    assert all(value.isfinite().all() for value in adversary.network.state_dict().values())


def _noise_of_the_image(adversary, images, generator, state=None):
    """Drawn noise differs by process; what is made of the image does not."""
    return project(images, adversary.network(images - 0.5), adversary.epsilon)


def _one_process(rank, port, folder, monkeypatched=False):
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    adversary, model = (
        AdversarialNoise(torch.device("cpu"), epsilon=5.0, iterations=2),
        classifier().eval(),
    )
    if monkeypatched:
        AdversarialNoise._noisy = _noise_of_the_image
    part = slice(0, 3) if rank == 0 else slice(3, 4)
    images, labels = photos(4)[part], torch.arange(4)[part]
    adversary.begin_epoch(0, model, [(images, labels)] * 2, generator(0 if monkeypatched else rank))
    adversary.step(model, images, labels, generator(rank))
    torch.save(adversary.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def in_two_processes(folder, *arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_one_process, (port, str(folder), *arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_processes_share_one_generator(tmp_path):
    """Each has images and noise of its own; generator, optimiser and pool are equal in both, bit by
    bit.
    """
    first, second = in_two_processes(tmp_path)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_processes_with_three_images_and_one_learn_as_one_with_four(tmp_path, monkeypatch):
    together, _ = in_two_processes(tmp_path, True)
    monkeypatch.setattr(AdversarialNoise, "_noisy", _noise_of_the_image)
    adversary, model = (
        AdversarialNoise(torch.device("cpu"), epsilon=5.0, iterations=2),
        classifier().eval(),
    )
    adversary.begin_epoch(0, model, [(photos(4), torch.arange(4))] * 2, generator())
    adversary.step(model, photos(4), torch.arange(4), generator())
    for name, value in adversary.state_dict().items():
        assert torch.allclose(value, together[name], rtol=1e-3, atol=1e-9), name
