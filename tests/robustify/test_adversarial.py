"""L2 adversarial training: a linear model solved by hand, a second derivation of the attack, what
it must leave alone.
"""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18
from torchvision.transforms import functional as transforms

from stillrobust.errors import UserError
from stillrobust.robustify import build_technique, image_views
from stillrobust.robustify.adversarial import attack, jitter_colours, project_to_ball


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
    )
    model.append(nn.LazyLinear(5))
    model(torch.rand(8, 3, 16, 16))
    return model


def batch(count=6, seed=0):
    return torch.rand(count, 3, 16, 16, generator=generator(seed)), torch.arange(count) % 5


run = partial(attack, generator=generator(), steps=3)


def reference(model, images, labels, epsilon, steps, step_size):
    """The attack once more, one image at a time and in other words: every gradient by backward(),
    every norm by hand.
    """
    out = []
    for image, label in zip(images, labels, strict=True):
        x = image.clone()
        for _ in range(steps):
            x = x.detach().requires_grad_()
            functional.cross_entropy(model(x[None]), label[None]).backward()
            unit = x.grad / (x.grad**2).sum().sqrt()
            delta = (x.detach() + step_size * unit) - image
            size = (delta**2).sum().sqrt()
            if size > epsilon:
                delta = delta * (epsilon / size)
            x = (image + delta).clip(0, 1)
        out.append(x.detach())
    return torch.stack(out)


def test_linear_model_by_hand():
    """Two classes by the sign of w.x: the worst image is x +- epsilon w / |w|, the margin changes
    by exactly epsilon |w|.
    """
    w = torch.randn(3 * 16 * 16, generator=generator(1)) * 0.1
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([-w / 2, w / 2]))
    # far from the walls
    images = 0.5 + 0.1 * (torch.rand(4, 3, 16, 16, generator=generator(2)) - 0.5)
    labels = torch.tensor([0, 1, 0, 1])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(-1, 1, 1, 1)
    epsilon = 0.5
    worst = run(model, images, labels, epsilon=epsilon, step_size=2 * epsilon / 3)
    expected = images + sign * epsilon * (w / w.norm()).view(1, 3, 16, 16)
    assert (worst - expected).abs().max() < 2e-6
    margin = ((worst - images).flatten(1) @ w).abs()
    assert torch.allclose(margin, epsilon * w.norm().expand(4), rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 5.0])
def test_equals_a_second_derivation(epsilon):
    model = network().eval()
    images, labels = batch()
    ours = run(model, images, labels, epsilon=epsilon, step_size=2 * epsilon / 3, keep_best=False)
    assert (ours - reference(model, images, labels, epsilon, 3, 2 * epsilon / 3)).abs().max() < 4e-6


@pytest.fixture(scope="module")
def resnet():
    """ResNet-18 for ten classes, BatchNorm with statistics of its own; float64, for in float32 a
    ReLU may fall either way.
    """
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    with torch.no_grad():
        for seed in range(3):
            model(torch.rand(16, 3, 32, 32, generator=generator(seed)))
    return model.eval().requires_grad_(False).double()


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 5.0])
def test_equals_foolbox(epsilon, resnet):
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = (
        resnet,
        torch.rand(2, 3, 32, 32, generator=generator(5)).double(),
        torch.arange(2),
    )
    theirs = foolbox.attacks.L2ProjectedGradientDescentAttack(
        abs_stepsize=2 * epsilon / 3, steps=3, random_start=False
    )
    _, expected, _ = theirs(
        foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=epsilon
    )
    ours = run(model, images, labels, epsilon=epsilon, step_size=2 * epsilon / 3, keep_best=False)
    assert (ours - expected).abs().max() < 1e-7


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("keep_best", [False, True])
def test_stays_in_ball_and_box(random_start, keep_best):
    model = network().eval()
    images, labels = batch()
    images = images.round()  # at the walls
    for epsilon in (0.1, 3.0, 20.0):
        out = run(
            model,
            images,
            labels,
            epsilon=epsilon,
            step_size=epsilon,
            random_start=random_start,
            keep_best=keep_best,
        )
        assert ((out - images).flatten(1).norm(dim=1) <= epsilon * (1 + 1e-6)).all()
        assert out.min() >= 0
        assert out.max() <= 1
    change = torch.randn(5, 3, 4, 4, generator=generator(3)) * torch.tensor(
        [0.0, 0.01, 0.1, 1, 10]
    ).view(-1, 1, 1, 1)
    assert torch.allclose(
        project_to_ball(change, 2.0),
        torch.renorm(change.flatten(1), 2, 0, 2.0).view_as(change),
        atol=1e-6,
    )


class Wave(nn.Module):
    """Logits that go up and down along one direction, so that a long step leads past the worst
    image.
    """

    def forward(self, x):
        wave = torch.sin(x.mean((1, 2, 3)) * 40)
        return torch.stack([wave, -wave], dim=1)


def test_keep_best_never_loses():
    images, labels = batch(24)[0], torch.arange(24) % 2

    def losses(**settings):
        out = run(Wave(), images, labels, epsilon=4.0, step_size=2.5, **settings)
        return functional.cross_entropy(Wave()(out), labels, reduction="none")

    clean = functional.cross_entropy(Wave()(images), labels, reduction="none")
    best, last = losses(), losses(keep_best=False)
    assert (best >= last - 1e-6).all()
    assert (best >= clean - 1e-6).all()
    assert (best > last + 1e-2).any(), "else this test would see nothing"
    assert (last < clean - 1e-2).any(), "the start is one of the iterates"
    assert (losses(steps=6) >= best - 1e-6).all(), "more steps never lower it"


def test_random_start_is_on_the_sphere():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 5))
    with torch.no_grad():
        flat[1].weight.zero_()  # no gradient: what is left is the start
    images = torch.full((6, 3, 16, 16), 0.5)
    out = run(
        flat, images, batch()[1], epsilon=1.0, step_size=0.5, random_start=True, keep_best=False
    )
    norms = (out - images).flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones(6), atol=1e-4)
    assert not torch.allclose(out[0], out[1])


def test_an_images_attack_does_not_depend_on_its_batch():
    model = network().eval()
    images, labels = batch()
    settings = {"epsilon": 1.0, "step_size": 0.5, "keep_best": False}
    alone = torch.cat(
        [run(model, images[i : i + 1], labels[i : i + 1], **settings) for i in range(len(images))]
    )
    assert torch.allclose(alone, run(model, images, labels, **settings), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1 / 6, 1e3])
def test_the_scale_of_the_loss_does_not_matter(scale, monkeypatch):
    """The gradient of the losses' sum, of their mean (a sixth of it) and of a thousandth or a
    thousandfold: the same images.
    """
    model = network().eval()
    images, labels = batch()
    settings = {"epsilon": 1.0, "step_size": 0.5}
    expected = run(model, images, labels, **settings)
    plain = functional.cross_entropy
    monkeypatch.setattr(
        functional, "cross_entropy", lambda *given, **options: scale * plain(*given, **options)
    )
    assert (run(model, images, labels, **settings) - expected).abs().max() < 2e-6


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_model_is_left_alone(wrapped):
    model = network().train()
    model[1].eval()  # a frozen BatchNorm within a training model
    used = Fabric(accelerator="cpu", precision="bf16-mixed").setup(model) if wrapped else model
    flags = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    images, labels = batch()
    run(used, images, labels, epsilon=1.0, step_size=0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not images.requires_grad


def test_the_attack_has_the_precision_of_the_model():
    """Under bf16-mixed it runs as fabric.autocast() says; what autocast kept without a gradient is
    not what trains.
    """
    model = network().train()
    seen = []
    model[3].register_forward_hook(
        lambda module, given, out: seen.append((out.dtype, module.training))
    )
    fabric = Fabric(accelerator="cpu", precision="bf16-mixed")
    wrapped = fabric.setup(model)
    images, labels = batch()
    technique = build_technique("l2(epsilon=1.0,jitter=False)")
    fabric.backward(technique.loss(wrapped, [images], labels, generator()))
    assert seen == [(torch.bfloat16, False)] * 4 + [(torch.bfloat16, True)]
    assert all(
        parameter.grad is not None and parameter.grad.any() for parameter in model[3].parameters()
    )
    with fabric.autocast():
        expected = run(model, images, labels, epsilon=1.0, step_size=2 / 3)
    assert torch.equal(run(wrapped, images, labels, epsilon=1.0, step_size=2 / 3), expected)
    assert expected.dtype == torch.float32
    assert not torch.equal(run(model, images, labels, epsilon=1.0, step_size=2 / 3), expected)


def test_flags_come_back_after_an_error():
    model = network().train()
    with pytest.raises(RuntimeError):
        run(
            model,
            torch.rand(2, 3, 9, 9),
            torch.zeros(2, dtype=torch.long),
            epsilon=1.0,
            step_size=0.5,
        )
    assert all(module.training for module in model.modules())


def test_loss_is_that_of_the_worst_images_and_trains():
    technique = build_technique("l2(epsilon=1.0,jitter=False)")
    model = network().train()
    images, labels = batch()
    worst = run(copy.deepcopy(model), images, labels, epsilon=1.0, step_size=2 / 3)
    expected = functional.cross_entropy(copy.deepcopy(model)(worst), labels)
    loss = technique.loss(model, [images], labels, generator())
    assert torch.equal(loss, expected)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model[1].num_batches_tracked == 2, (
        "one forward in training mode, beside the one that made the network"
    )


def test_no_radius_is_plain_training_bit_for_bit():
    technique = build_technique("l2(epsilon=0.0,jitter=False)")
    images, labels = batch()
    states = []
    for loss in (technique.loss, build_technique("gaussian").loss):
        model = network().train()
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimiser.zero_grad()
            loss(model, [images], labels, generator()).backward()
            optimiser.step()
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_jitter_of_ten_percent_in_any_order(monkeypatch):
    """Factors are uniform on 0.9..1.1 (MadryLab/robustness a954124, ColorJitter(.1, .1, .1)), and
    no order is the rule.
    """
    seen = []
    for name in ("brightness", "contrast", "saturation"):
        monkeypatch.setattr(
            transforms,
            f"adjust_{name}",
            lambda picture, factor, name=name: seen.append((name, factor)) or picture,
        )
    for seed in range(200):
        jitter_colours(np.zeros((2, 2, 3), np.uint8), np.random.default_rng(seed))
    factors = np.array([factor for _, factor in seen])
    assert 0.9 <= factors.min() < 0.902
    assert 1.098 < factors.max() <= 1.1
    assert (
        len(
            {tuple(name for name, _ in seen[start : start + 3]) for start in range(0, len(seen), 3)}
        )
        == 6
    )


def test_jitter_is_small_and_its_own():
    image = (batch(1)[0][0] * 255).byte().permute(1, 2, 0).numpy()
    outs = np.stack([jitter_colours(image, np.random.default_rng(seed)) for seed in range(300)])
    change = outs - image / 255.0
    assert 0.01 < np.abs(change).mean() < 0.1
    # The lighting alone, on grey where saturation does nothing: along the first component all
    # channels move together.
    grey = np.full((4, 4, 3), 128, np.uint8)
    shades = np.stack(
        [jitter_colours(grey, np.random.default_rng(seed))[0, 0] for seed in range(2000)]
    )
    spread = (shades - shades.mean(1, keepdims=True)).std(0)
    # Var of channel c less the channels' mean: (0.05)^2 sum over components of (eigenvalue (v_c -
    # mean v))^2
    values, vectors = (
        np.array([0.2175, 0.0188, 0.0045]),
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
    )
    centred = np.array(vectors) - np.mean(vectors, axis=0)
    assert spread == pytest.approx(0.05 * np.sqrt(((centred * values) ** 2).sum(1)), rel=0.1)
    assert build_technique("l2").overlaps_test == ("brightness", "contrast", "saturate")
    (view,) = image_views(build_technique("l2"), image, np.random.default_rng(0))
    assert np.array_equal(view, jitter_colours(image, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("l2(epsilon=-1)", "epsilon of l2 at least 0"),
        ("l2(epsilon='three')", "epsilon of l2 got 'three'"),
        ("l2(epsilon=1e999)", "at most 1000"),
        ("l2(steps=0)", "steps of l2 at least 1"),
        ("l2+augmix", "two losses"),
    ],
)
def test_a_wrong_argument_is_one_sentence(spec, words):
    with pytest.raises(UserError) as caught:
        build_technique(spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_eight_bit_images_are_refused():
    images, labels = batch()
    for wrong in ((images * 255).byte(), images * 255):
        with pytest.raises(UserError, match="divide"):
            run(network(), wrong, labels, epsilon=1.0, step_size=0.5)
    with pytest.raises(UserError, match="one label for each"):
        run(network(), images, labels[:2], epsilon=1.0, step_size=0.5)
