import numpy as np
import pytest
import torch

from stillrobust.backbones import build_backbone
from stillrobust.errors import UserError
from stillrobust.samples import IGNORE, Sample, Target
from stillrobust.tasks import TASKS, make_task, transforms
from stillrobust.tasks.heads import initialize_head
from tests.toys import SETTINGS, Toys, head_names


def build(task, name="resnet18", seed=0, **settings):
    data = Toys(task)
    made = make_task(task, SETTINGS[task] | settings)
    model = made.build_model(build_backbone(f"{name}(weights='random')")[0], data.info)
    initialize_head(model, seed)
    return made, model, data


@pytest.mark.parametrize("name", sorted(TASKS))
def test_contract(name):
    """Losses are finite and reach the head; predictions have the announced shapes, dtypes and
    ranges.
    """
    task, model, data = build(name)
    batch = [task.augment(data[i], np.random.default_rng(i)) for i in range(4)]
    loss = sum(task.loss(model.train(), batch).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert any(
        parameter.grad is not None
        for key, parameter in model.named_parameters()
        if "backbone" not in key
    )
    with torch.inference_mode():
        predictions = task.predict(model.eval(), [data[0].image, data[1].image[:40], data[2].image])
    assert len(predictions) == 3
    if name == "classification":
        assert all(abs(p.probabilities.sum() - 1) < 1e-5 for p in predictions)
    elif name == "segmentation":
        assert [p.label_map.shape for p in predictions] == [(64, 64), (40, 64), (64, 64)]
        assert all(p.label_map.dtype == np.uint8 for p in predictions)
    else:
        assert all(
            p.boxes.shape == (len(p.scores), 4) and p.masks.shape[0] == len(p.labels)
            for p in predictions
        )
        assert predictions[1].masks.shape[1:] == (40, 64)


def test_first_head_does_not_depend_on_the_backbone():
    for name in TASKS:
        first, second = (
            build(name, backbone)[1].state_dict() for backbone in ("resnet18", "convnext_atto")
        )
        shared = [
            k
            for k in head_names(build(name)[1])
            if k in second and first[k].shape == second[k].shape
        ]
        assert all(torch.equal(first[key], second[key]) for key in shared), name
        other = build(name, seed=1)[1].state_dict()
        assert not all(torch.equal(first[key], other[key]) for key in head_names(build(name)[1]))


def test_flip_by_hand():
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    mask = np.zeros((1, 2, 4), bool)
    mask[0, 0, 0] = True
    target = Target(
        "a", (2, 4), boxes=np.array([[0, 0, 1, 1]], np.float32), labels=np.array([0]), masks=mask
    )
    flips = [
        transforms.random_flip(Sample(image, target), np.random.default_rng(seed))
        for seed in range(20)
    ]
    changed = [flip for flip in flips if not np.array_equal(flip.image, image)]
    assert 0 < len(changed) < 20
    assert changed[0].target.boxes.tolist() == [[3, 0, 4, 1]]
    assert changed[0].target.masks[0, 0].tolist() == [False, False, False, True]


def test_wrong_settings():
    with pytest.raises(UserError, match="Did you mean: channels"):
        make_task("detection", {"chanels": 3})
    with pytest.raises(UserError, match="expects int"):
        make_task("detection", {"channels": "many"})
    with pytest.raises(UserError, match="one of class_weights for each"):
        build("segmentation", class_weights=[1.0])


def test_class_weights_by_hand():
    """Two pixels with losses a and b, weights 1 and 3, and an ignored pixel: (a + 3 b) / 3, as
    mmsegmentation means.
    """

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(
                torch.tensor([[[2.0, 0.5, 9.0]], [[0.0, 1.5, 0.0]], [[0.0, 0.0, 0.0]]])[None]
            )

        def forward(self, images):
            return self.logits, self.logits

    labels = np.array([[0, 1, IGNORE]], np.uint8)
    sample = Sample(np.zeros((1, 3, 3), np.uint8), Target("a.png", (1, 3), label_map=labels))
    losses = make_task("segmentation", {"class_weights": [1, 3, 7], "crop": [1, 3]}).loss(
        Fixed(), [sample]
    )
    a = -np.log(np.exp(2.0) / (np.exp(2.0) + 1 + 1))
    b = -np.log(np.exp(1.5) / (np.exp(0.5) + np.exp(1.5) + 1))
    assert losses["decode"].item() == pytest.approx((a + 3 * b) / 3, rel=1e-6)
    assert losses["auxiliary"].item() == pytest.approx(0.4 * (a + 3 * b) / 3, rel=1e-6)
