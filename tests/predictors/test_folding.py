"""BatchNorm is folded into convolutions where that gives the same numbers, and only there."""

import copy

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from stillrobust.predictors.folding import CONVOLUTIONS, fold_batch_norm
from stillrobust.predictors.outputs import float_tensor
from stillrobust.samples import Prediction


class Pairs(nn.Module):
    """Two pairs of convolution and norm, joined as ``kind`` says."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 6, 3)
        self.norm, self.other = (
            nn.BatchNorm2d(6),
            nn.BatchNorm2d(6, track_running_stats=kind != "batch"),
        )

    def forward(self, x):
        made = self.first(x)
        x = self.norm(made)
        if self.kind == "used twice":
            x = x + made
        x = self.second(x)
        if self.kind == "shared convolution":
            x = self.second(self.norm(x))
        if self.kind == "something between":
            x = x.relu()
        return self.other(x)


def with_statistics(model):
    """Weights and statistics as after training, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return model.eval()


def predictor_of(model):
    def predict(images):
        outputs = model(torch.stack([float_tensor(image) for image in images]))
        return [Prediction(probabilities=output.flatten().numpy()) for output in outputs]

    return predict


def norms_in(model):
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def require_same_predictions(model, folded, found):
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    before = copy.deepcopy(model)
    assert fold_batch_norm(model, predictor_of(model)) == folded
    assert norms_in(before) - norms_in(model) == folded
    assert norms_in(model) == found - folded
    with torch.inference_mode():
        one, other = (predictor_of(m)([image])[0].probabilities for m in (before, model))
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize(
    ("kind", "folded"),
    [
        ("plain", 2),
        ("used twice", 0),
        ("shared convolution", 0),
        ("something between", 1),
        ("batch", 1),
    ],
)
def test_pairs_that_belong_to_each_other_are_folded(kind, folded):
    require_same_predictions(with_statistics(Pairs(kind)), folded, 2)


def test_models_of_libraries_predict_the_same():
    lite = timm.create_model("tf_efficientnet_lite0", num_classes=5)
    require_same_predictions(with_statistics(lite), 49, 49)
    resnet = torchvision.models.resnet18(num_classes=5)
    require_same_predictions(with_statistics(resnet), 20, 20)


def test_a_wrong_pair_leaves_the_model_as_it_was(monkeypatch):
    class Rescaled(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)

    monkeypatch.setattr("stillrobust.predictors.folding.CONVOLUTIONS", (*CONVOLUTIONS, Rescaled))
    model = with_statistics(nn.Sequential(Rescaled(3, 4, 3), nn.BatchNorm2d(4)))
    require_same_predictions(model, 0, 1)


def test_a_model_that_fails_on_noise_is_left_as_it_was():
    model = with_statistics(Pairs("plain"))

    def predict(images):
        raise RuntimeError("not this one")

    assert fold_batch_norm(model, predict) == 0
    assert norms_in(model) == 2
