"""Fine-tuning methods: identities, closed forms, resuming, and what is refused."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stillrobust.backbones import resolve_backbone
from stillrobust.errors import UserError
from stillrobust.finetuning import METHODS, Fit, build_methods, interpolate_weights
from stillrobust.finetuning.averaging import ExponentialMovingAverage
from stillrobust.finetuning.penalties import GradientNormDecay, StartingPointDecay
from stillrobust.finetuning.projection import SelectiveProjectionDecay
from stillrobust.tasks.heads import backbone_of
from stillrobust.training import Plan, Recipe, load_model, train
from stillrobust.training.interpolation import interpolate_runs
from stillrobust.training.loop import build_model
from tests.toys import SETTINGS, Toys, head_names

RECIPE = Recipe(steps=4, batch_size=4, checkpoint_seconds=0.0, warmup=0.0, lr=5e-3)
BACKBONE = "resnet_mini(weights='random')"


def trained(folder, method="", task="classification", progress=lambda *_: None, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    plan = Plan(task, BACKBONE, "full_network", recipe, SETTINGS[task], method=method)
    train(plan, Toys(task), folder, progress)
    return load_file(folder / "model.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"), weight_decay=0.0)


@pytest.mark.parametrize(
    "method",
    ["ema(decay=0.0)", "rgn(c=0.0,iterations=2)", "spd(strength=0.0)", "l2_sp(alpha=0.0,beta=0.0)",
     "layer_decay(rate=1.0)"],
)  # fmt: skip
def test_at_strength_zero_a_method_is_plain_fine_tuning(method, plain, tmp_path):
    changes = {"backbone_lr_factor": 1.0} if "layer_decay" in method else {}
    if changes:
        plain = trained(tmp_path / "plain", weight_decay=0.0, **changes)
    assert equal(trained(tmp_path / "run", method, weight_decay=0.0, **changes), plain)


@pytest.mark.parametrize(
    "method",
    ["ema(decay=0.9)", "rgn(c=10.0, iterations=2)", "spd", "l2_sp(alpha=0.5)", "lp_ft",
     "layer_decay(rate=0.5)", "surgical(stages='layer4')", "lp_ft + wise_ft + ema"],
)  # fmt: skip
def test_every_method_changes_the_training_and_resumes_to_the_bit(method, plain, tmp_path):
    whole = trained(tmp_path / "whole", method, weight_decay=0.0)
    assert not equal(whole, plain)

    for step in (2, 4):  # at the turn of lp_ft, and within its second phase
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "stopped", method, progress=_stop_at(step), weight_decay=0.0)
    seen = []
    resumed = trained(
        tmp_path / "stopped", method, progress=lambda *step: seen.append(step[0]), weight_decay=0.0
    )
    assert seen[-1] == 4
    assert 1 not in seen  # it did not start again
    assert equal(resumed, whole)


@pytest.mark.parametrize("task", SETTINGS)
def test_methods_train_every_task(task, tmp_path):
    spec = "lp_ft + rgn(iterations=1) + ema(decay=0.5)"
    trained(tmp_path, spec, task, steps=2)
    description = load_model(tmp_path)[2]
    assert description["plan"]["method"] == "lp_ft + rgn(iterations=1) + ema(decay=0.5)"
    assert description["identity"]["method"] == description["plan"]["method"]


def start_and_run(folder, method, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    plan = Plan(
        "classification",
        BACKBONE,
        "full_network",
        recipe,
        SETTINGS["classification"],
        method=method,
    )
    data = Toys("classification")
    start, _ = build_model(plan, resolve_backbone(BACKBONE), data.info)
    train(plan, data, folder)
    return start, load_file(folder / "model.safetensors")


def test_surgical_leaves_other_stages_to_the_bit(tmp_path):
    start, after = start_and_run(tmp_path, "surgical(stages=('layer4',))")
    before = start.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    outside = changed - head_names(start)
    assert outside
    assert all(".layer4." in name for name in outside)


def test_the_first_phase_of_lp_ft_leaves_the_backbone_to_the_bit(tmp_path):
    states = []

    def look(done, total, text):
        states.append(done)
        if done == 3:
            raise KeyboardInterrupt

    spec = "lp_ft(head_steps=0.5)"
    plan = Plan(
        "classification", BACKBONE, "full_network", RECIPE, SETTINGS["classification"], method=spec
    )
    data = Toys("classification")
    start, _ = build_model(plan, resolve_backbone(BACKBONE), data.info)
    with pytest.raises(KeyboardInterrupt):
        train(plan, data, tmp_path, look)
    (file,) = tmp_path.glob("resume-*.safetensors")  # written after step 2, the last of the head
    saved = {
        key.removeprefix("model."): value
        for key, value in load_file(file).items()
        if key.startswith("model.")
    }
    before, head = start.state_dict(), head_names(start)
    changed = {name for name in before if not torch.equal(before[name], saved[name])}
    assert changed
    assert changed <= head


def test_both_phases_have_a_whole_schedule():
    phases = build_methods("lp_ft(head_steps=0.25)").phases(8)
    assert [(one.start, one.end, one.freezes_backbone) for one in phases] == [
        (0, 2, True),
        (2, 8, False),
    ]
    assert [(one.start, one.end) for one in build_methods("").phases(8)] == [(0, 8)]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_wise_ft_ends_at_its_two_models(alpha, tmp_path):
    """At 1 it is lp_ft; at 0 it is what lp_ft had when its first phase ended."""
    made = trained(tmp_path / "wise", f"lp_ft + wise_ft(alpha={alpha})")
    if alpha == 1.0:
        assert equal(made, trained(tmp_path / "plain", "lp_ft"))
        return
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "half", "lp_ft", progress=_stop_at(3))
    (file,) = (tmp_path / "half").glob("resume-*.safetensors")
    half = {key.removeprefix("model."): v for key, v in load_file(file).items() if "model." in key}
    assert all(
        torch.equal(made[name], half[name]) for name in made if made[name].is_floating_point()
    )


def _stop_at(step):
    def stop(done, total, text):
        if done == step:
            raise KeyboardInterrupt

    return stop


def test_interpolation_by_hand():
    first = {"w": torch.tensor([0.0, 4.0]), "n": torch.tensor(1)}
    second = {"w": torch.tensor([2.0, -4.0]), "n": torch.tensor(3)}
    quarter = interpolate_weights(first, second, 0.25)
    assert quarter["w"].tolist() == [0.5, 2.0]
    assert quarter["n"].item() == 3
    values = {"w": torch.randn(999)}, {"w": torch.randn(999)}
    for alpha in (0, 1):
        assert equal(interpolate_weights(*values, alpha), values[alpha])
    assert equal(interpolate_weights(values[0], values[0], 0.3), values[0])
    with pytest.raises(UserError, match="one architecture"):
        interpolate_weights(first, {"w": torch.zeros(3), "n": torch.tensor(1)}, 0.5)


class Line(nn.Module):
    """A backbone of one weight vector, and a head; the backbone's loss is quadratic."""

    def __init__(self, start):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))
        self.head = nn.Parameter(torch.tensor([3.0]))


def fit_of(model, optimizer):
    parameters = dict(model.named_parameters())
    return Fit(model, optimizer, {"weight": model.weight.detach().clone()}, parameters)


def test_l2_sp_ends_at_its_closed_form():
    """(H + alpha I)^-1 (H theta* + alpha theta_0) on a quadratic loss; the head goes to 0."""
    model = Line([1.0, -1.0])
    hessian, goal = torch.tensor([[2.0, 0.5], [0.5, 1.0]]), torch.tensor([3.0, 2.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    fit, method = fit_of(model, optimizer), StartingPointDecay(alpha=0.7, beta=0.5)
    for _ in range(400):
        away = model.weight - goal
        loss = 0.5 * away @ hessian @ away + method.penalty(fit)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    start = torch.tensor([1.0, -1.0])
    expected = torch.linalg.solve(hessian + 0.7 * torch.eye(2), hessian @ goal + 0.7 * start)
    assert torch.allclose(model.weight, expected, atol=1e-5)
    assert model.head.abs().item() < 1e-5


def test_l2_sp_without_alpha_is_weight_decay_of_the_head():
    models = [Line([1.0]), Line([1.0])]
    decay = torch.optim.SGD(
        [{"params": [models[0].weight]}, {"params": [models[0].head], "weight_decay": 0.3}], lr=0.1
    )
    plain = torch.optim.SGD(models[1].parameters(), lr=0.1)
    fit, method = fit_of(models[1], plain), StartingPointDecay(alpha=0.0, beta=0.3)
    for _ in range(5):
        for model, optimizer in zip(models, (decay, plain), strict=True):
            loss = (model.weight * model.head).sum()
            if model is models[1]:
                loss = loss + method.penalty(fit)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert torch.allclose(models[0].head, models[1].head, rtol=1e-6)
    assert torch.allclose(models[0].weight, models[1].weight, rtol=1e-6)


def test_spd_by_hand():
    """Adam with a first moment of its own moves away although the gradient points back."""
    model = Line([0.0])
    with torch.no_grad():
        fit = fit_of(model, None)
        model.weight.fill_(1.0)  # theta; theta_0 is 0
    method = SelectiveProjectionDecay(strength=1.0)
    model.weight.grad = torch.tensor([0.5])  # g (theta - theta_0) = 0.5: the loss wants it back
    method.before_step(fit)
    with torch.no_grad():
        model.weight.fill_(1.25)  # the optimizer's momentum took it further
    method.after_step(fit)
    # r = (1.25 - 1) / 1.25 = 0.2, and 1.25 - 0.2 * 1.25 = 1
    assert model.weight.item() == pytest.approx(1.0)
    model.weight.grad = torch.tensor([-0.5])  # now the loss wants it further away
    method.before_step(fit)
    with torch.no_grad():
        model.weight.fill_(1.25)
    method.after_step(fit)
    assert model.weight.item() == 1.25


def test_spd_never_acts_on_sgd_without_momentum():
    """Its condition and a step away exclude each other."""
    model = Line([0.3, -0.2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    fit, method = fit_of(model, optimizer), SelectiveProjectionDecay(strength=1.0)
    twin = Line([0.3, -0.2])
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    for _ in range(20):
        for one, steps in ((model, optimizer), (twin, twin_optimizer)):
            loss = (one.weight - torch.tensor([1.0, 2.0])).square().sum()
            steps.zero_grad()
            loss.backward()
            if one is model:
                method.before_step(fit)
            steps.step()
            if one is model:
                method.after_step(fit)
    assert torch.equal(model.weight, twin.weight)


def test_rgn_by_hand():
    model = Line([2.0, -4.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    fit, method = fit_of(model, optimizer), GradientNormDecay(c=0.1, iterations=2)
    for gradient in ([1.0, 0.0], [3.0, 8.0]):
        model.weight.grad = torch.tensor(gradient)
        method.probe(fit)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([3.0, -4.5]))
    model.weight.grad = None
    method.penalty(fit).backward()
    # RGN = ((1 + 3) / 2 / 2, (0 + 8) / 2 / 4) = (1, 1); times c and theta - theta_0
    assert model.weight.grad.tolist() == pytest.approx([0.1 * 1.0, 0.1 * -0.5])
    method.c = 100.0
    model.weight.grad = None
    method.penalty(fit).backward()
    # clipped to 1 / lr, so that one step ends at theta_0
    assert (model.weight - 0.5 * model.weight.grad).tolist() == pytest.approx([2.0, -4.0])


def test_rgn_sums_over_the_kernel():
    layer = nn.Conv2d(1, 2, 3, bias=False)
    fit = Fit(layer, None, {"weight": layer.weight.detach().clone()}, {"weight": layer.weight})
    layer.weight.grad = torch.ones_like(layer.weight)
    method = GradientNormDecay(iterations=1)
    method.probe(fit)
    (ratio,) = method.state().values()
    assert ratio.shape == (2, 1, 1, 1)
    expected = (1 / (layer.weight.detach().abs() + 1e-8)).sum((2, 3), keepdim=True)
    assert torch.allclose(ratio, expected)


def test_ema_by_hand():
    model = Line([0.0])
    fit, method = fit_of(model, None), ExponentialMovingAverage(decay=0.5)
    method.begin_phase(fit, 0)
    average = 0.0
    for step, value in enumerate((1.0, 2.0, 3.0)):
        with torch.no_grad():
            model.weight.fill_(value)
        method.after_step(fit)
        keep = min(0.5, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * value
    method.finish(fit)
    assert model.weight.item() == pytest.approx(average)


@pytest.mark.parametrize(
    ("spec", "transfer", "message"),
    [
        ("lp_fft", "full_network", "lp_ft"),
        ("ema(decay=2.0)", "full_network", "decay"),
        ("ema(dekay=0.5)", "full_network", "decay"),
        ("ema + ema", "full_network", "twice"),
        ("l2_sp + spd", "full_network", "exclude each other"),
        ("wise_ft", "full_network", r"lp_ft \+ wise_ft"),
        ("layer_decay", "fixed_feature", "freezes it"),
        ("lp_ft", "fixed_feature", "freezes it"),
        ("surgical(stages=('layer9',))", "full_network", "layer9.*choose among"),
        ("lp_ft(head_steps=0.0)", "full_network", "at least one step"),
    ],
)
def test_what_cannot_act_is_refused_before_anything_is_written(spec, transfer, message, tmp_path):
    plan = Plan(
        "classification", BACKBONE, transfer, RECIPE, SETTINGS["classification"], method=spec
    )
    with pytest.raises(UserError, match=message):
        train(plan, Toys("classification"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ema_trains_a_head_too(tmp_path):
    plan = Plan(
        "classification",
        BACKBONE,
        "fixed_feature",
        RECIPE,
        SETTINGS["classification"],
        method="ema",
    )
    train(plan, Toys("classification"), tmp_path)
    assert backbone_of(load_model(tmp_path)[1]).frozen in (True, False)


@pytest.mark.parametrize("name", METHODS)
def test_every_card_names_every_argument(name):
    import inspect

    entry = METHODS[name]
    assert entry.card.name == name
    assert list(inspect.signature(entry.build).parameters) == list(entry.card.parameters)
    assert entry.card.paper in entry.card.text()


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, trained(folder / "first"), trained(folder / "second", lr=1e-2)


def test_a_path_between_two_runs(two_runs, tmp_path):
    folder, first, second = two_runs
    paths = interpolate_runs(folder / "first", folder / "second", [0, 0.5, 1], tmp_path)
    made = {alpha: load_file(path / "model.safetensors") for alpha, path in paths.items()}
    assert equal(
        made[0], {**first, **{k: v for k, v in second.items() if not v.is_floating_point()}}
    )
    assert equal(made[1], second)
    for name, value in made[0.5].items():
        if value.is_floating_point():
            assert torch.allclose(value, (first[name] + second[name]) / 2, atol=1e-7)
    _, _, description = load_model(paths[0.5])
    assert "interpolated 0.5" in description["plan"]["display_name"]
    before = (paths[0.5] / "model.json").stat().st_mtime_ns
    interpolate_runs(folder / "first", folder / "second", [0.5], tmp_path)
    assert (paths[0.5] / "model.json").stat().st_mtime_ns == before


def test_a_path_between_runs_that_do_not_fit_is_refused(two_runs, tmp_path):
    folder, *_ = two_runs
    trained(tmp_path / "other", task="segmentation")
    with pytest.raises(UserError, match="same tasks"):
        interpolate_runs(folder / "first", tmp_path / "other", [0.5], tmp_path / "path")
    with pytest.raises(UserError, match="from 0 to 1"):
        interpolate_runs(folder / "first", folder / "second", [1.5], tmp_path / "path")
    assert not (tmp_path / "path").exists()


@pytest.mark.slow
def test_two_processes_fine_tune_as_one_does(tmp_path):
    """lp_ft changes between its phases what every process trains."""
    spec = "lp_ft + rgn(iterations=2) + ema(decay=0.5)"
    one = trained(tmp_path / "one", spec, optimizer="sgd", accelerator="cpu", steps=4)
    two = trained(tmp_path / "two", spec, optimizer="sgd", accelerator="cpu", steps=4, devices=2)
    for name, value in one.items():
        if value.is_floating_point():
            assert torch.allclose(value, two[name], atol=1e-4), name
