"""Names of backbones and models are those of the modules and libraries that they stand for."""

import timm
import torchvision

from stillrobust.backbones import ARCHITECTURES
from stillrobust.backbones.conv_stem import CONV_STEMS
from stillrobust.backbones.library_names import model_names
from stillrobust.backbones.resnet import DEPTHS
from stillrobust.backbones.swin import SHAPES
from stillrobust.backbones.timm_models import LITE_REPEATS


def test_names_without_import_are_those_of_the_libraries():
    assert model_names("timm") == set(timm.list_models())
    assert model_names("torchvision") == set(torchvision.models.list_models())


def test_every_architecture_has_a_name_and_a_builder():
    assert set(ARCHITECTURES) == {*DEPTHS, "resnet_mini", *SHAPES, *LITE_REPEATS, *CONV_STEMS}
    assert all(callable(builder) for builder in ARCHITECTURES.values())
