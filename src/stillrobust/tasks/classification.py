"""Classification: a linear head on the backbone's embedding (Salman et al. 2020's transfer)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.backbones import Backbone
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.samples import DatasetInfo, Image, Prediction, Sample
from stillrobust.tasks import transforms
from stillrobust.tasks.distributed import mean_over_processes
from stillrobust.tasks.heads import Photometric, device_of, image_batch


class LinearClassifier(nn.Module):
    """A linear layer on the backbone's embedding: (B, 3, H, W) -> logits (B, classes).

    Args:
        backbone: Its upstream classifier is dropped.
        classes: Number of classes.
    """

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        backbone.keep_only("embedding")
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.embed_dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float (B, 3, H, W) of 0..1 -> logits (B, classes)."""
        return self.classifier(self.backbone.embed(images))  # type: ignore[no-any-return]


@torch.inference_mode()
def class_count(backbone: Backbone) -> int:
    """The number of classes of a backbone's upstream classifier."""
    training = backbone.training
    classes = backbone.eval().classify(torch.zeros(1, 3, *backbone.native_size)).shape[1]
    backbone.train(training)
    return int(classes)


class UpstreamClassifier(nn.Module):
    """A backbone with its upstream classifier: (B, 3, H, W) -> logits (B, classes).

    Args:
        backbone: With its classifier.
        classes: Number of classes of the data.

    Raises:
        UserError: If the upstream classifier has another number of classes.
    """

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        upstream = class_count(backbone)
        if upstream != classes:
            raise UserError(
                f"Expected data with the {upstream} classes of {backbone.name}'s classifier, but"
                f" got {classes} classes; take ImageNet's validation set, or another transfer"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Float (B, 3, H, W) of 0..1 -> logits (B, classes)."""
        return self.backbone.classify(images)


@dataclass(frozen=True)
class Classification:
    """Settings of classification, in pixels.

    The defaults are those of ImageNet, and of CIFAR-10 in the paper, whose images have 32 pixels.
    """

    resize: int = 256
    """Shorter side of test images before the crop."""
    crop: int = 224
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of the random crop in training, as a fraction (torchvision's RandomResizedCrop)."""
    interpolation: str = "bilinear"
    """``bilinear`` (torchvision, Salman et al.) or ``bicubic`` (Swin)."""
    mean: tuple[float, ...] = ()
    """Normalization that replaces the backbone's: red, green and blue of images in 0..1."""
    std: tuple[float, ...] = ()

    name = "classification"

    def __post_init__(self) -> None:
        lookup(
            "interpolation",
            self.interpolation,
            {how: how for how in get_args(transforms.Interpolation)},
        )
        if self.crop > self.resize or self.crop < 1:
            raise UserError(
                f"Expected a crop of 1 to resize={self.resize} pixels, but got {self.crop}; change"
                " one of them"
            )
        if (len(self.mean), len(self.std)) not in ((0, 0), (3, 3)):
            raise UserError(
                f"Expected three values each for mean and std, or none, but got {self.mean} and"
                f" {self.std}; give three for red, green and blue"
            )

    def build_model(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """A ``LinearClassifier``, its head not yet initialized."""
        backbone.require_size((self.crop, self.crop))
        return LinearClassifier(self._with_normalization(backbone), len(info.classes))

    def build_upstream(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """Build the backbone with its upstream classifier.

        Args:
            backbone: With its classifier.
            info: Description of the data, with its classes.

        Raises:
            UserError: If the numbers of classes differ.
        """
        backbone.require_size((self.crop, self.crop))
        return UpstreamClassifier(self._with_normalization(backbone), len(info.classes))

    def _with_normalization(self, backbone: Backbone) -> Backbone:
        if self.mean:
            backbone.set_preprocessing(self.mean, self.std)
        return backbone

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Random resized crop and mirror."""
        image = transforms.random_resized_crop(
            sample.image, self.crop, self.crop_scale, rng, self.interpolation
        )
        target = replace(sample.target, size=(self.crop, self.crop))
        return transforms.random_flip(Sample(image, target), rng)

    def loss(
        self, model: nn.Module, batch: Sequence[Sample], photometric: Photometric | None = None
    ) -> dict[str, Tensor]:
        """The cross-entropy, a mean over the images of all processes."""
        device = device_of(model)
        labels = torch.tensor([sample.target.label for sample in batch], device=device)
        logits = model(image_batch([sample.image for sample in batch], device, photometric))
        return {
            "cross_entropy": (
                functional.cross_entropy(logits, labels, reduction="sum")
                / mean_over_processes(len(batch), device)
            )
        }

    def predict(self, model: nn.Module, images: Sequence[Image]) -> list[Prediction]:
        """uint8 images of any sizes -> probabilities (classes,) each."""
        crops = [
            transforms.center_crop(image, self.resize, self.crop, self.interpolation)
            for image in images
        ]
        probabilities = model(image_batch(crops, device_of(model))).float().softmax(1).cpu().numpy()
        return [Prediction(probabilities=row) for row in probabilities]
