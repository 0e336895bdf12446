"""What every backbone is: it normalizes its own input, gives four maps or one embedding, and can be
frozen for good.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from stillrobust.backbones.layouts import Layout
from stillrobust.errors import UserError

LEVELS = 4  # Mask R-CNN's FPN and UPerNet both take the last four stages, strides 4 to 32
Use = Literal["maps", "embedding"]


class Backbone(nn.Module):
    """A whole upstream model in ``.model``, its ImageNet classifier included, that normalizes its
    own input.

    ``forward``: float (B, 3, H, W) RGB 0..1 -> four maps (B, C_i, ceil(H/s_i), ceil(W/s_i)), finest
    first. ``embed``: the same input -> (B, embed_dim), what the upstream classifier sees.
    ``classify``: -> (B, classes) logits. A family overrides ``maps_of``, ``embedding_of`` and
    ``logits_of``, which take normalized images, and ``keep_only``.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        name: str,
        model: nn.Module,
        *,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        embed_dim: int,
        layouts: tuple[Layout, ...],
        classifier: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.channels = channels
        self.strides = strides
        self.embed_dim = embed_dim
        self.layouts = layouts
        """The key layouts of weight files that it reads."""
        self.classifier = classifier
        """Parts of ``model`` that no map needs; the last is the linear classifier, those before it
        make the embedding.
        """
        self.absent: tuple[str, ...] = ()
        """Parts of the classifier that the weights came without."""
        self.clamp = False
        self.frozen = False
        self.norm_eval = False
        """BatchNorm keeps its statistics in training too."""
        self.register_buffer("pixel_mean", torch.zeros(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.ones(1, 3, 1, 1), persistent=False)

    def set_preprocessing(
        self, mean: tuple[float, ...], std: tuple[float, ...], clamp: bool = False
    ) -> None:
        """Normalize by (x - mean) / std for x in 0..1, channels in the order R, G, B, or one value
        for all.

        ``clamp``: clamp to 0..1 before, as adversarially trained models do.
        """
        self.clamp = clamp
        for buffer, values in ((self.pixel_mean, mean), (self.pixel_std, std)):
            buffer.copy_(torch.tensor(values).view(1, -1, 1, 1).expand(1, 3, 1, 1))

    def preprocessing(self) -> dict[str, Any]:
        """The arguments of :meth:`set_preprocessing` that make it so."""
        mean, std = (
            tuple(buffer.flatten().tolist()) for buffer in (self.pixel_mean, self.pixel_std)
        )
        return {"mean": mean, "std": std, "clamp": self.clamp}

    def freeze(self) -> None:
        """Fixed-feature transfer: no gradient, and statistics, dropout and drop-path in evaluation
        mode for good.
        """
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """As ``nn.Module.train``, but a frozen backbone stays in evaluation mode, and so do norms
        with ``norm_eval``.
        """
        super().train(mode and not self.frozen)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def normalize(self, images: Tensor) -> Tensor:
        """(x - mean) / std, per channel."""
        images = images.clamp(0, 1) if self.clamp else images
        return (images - self.pixel_mean) / self.pixel_std

    def forward(self, images: Tensor) -> list[Tensor]:
        """Float (B, 3, H, W) RGB 0..1 -> four maps (B, C_i, ceil(H/s_i), ceil(W/s_i)), finest
        first.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.maps_of(self.normalize(images))

    def embed(self, images: Tensor) -> Tensor:
        """Float (B, 3, H, W) RGB 0..1 -> (B, embed_dim): pooled features before the upstream
        classifier.
        """
        self._require(self.classifier[:-1])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.embedding_of(self.normalize(images))

    def classify(self, images: Tensor) -> Tensor:
        """Float (B, 3, H, W) RGB 0..1 -> (B, classes): the logits of the upstream classifier."""
        self._require(self.classifier)
        return self.logits_of(self.normalize(images))

    def _require(self, parts: tuple[str, ...]) -> None:
        missing = [part for part in parts if part in self.absent]
        if missing:
            raise UserError(
                f"{self.name} has to classify here, but its weights came without"
                f" {', '.join(missing)}; take a file of the whole upstream model, or a task that"
                " needs maps alone"
            )

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """:meth:`forward` on normalized images."""
        raise NotImplementedError

    def embedding_of(self, x: Tensor) -> Tensor:
        """:meth:`embed` on normalized images."""
        raise NotImplementedError

    def logits_of(self, x: Tensor) -> Tensor:
        """:meth:`classify` on normalized images."""
        raise NotImplementedError

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth in training: the last block is left out with probability ``rate``, the
        first never.
        """
        raise UserError(
            f"{self.name} has no drop path, but the recipe asks for {rate:g}; take a swin_*, or"
            " another recipe"
        )

    def reset_classifier(self, classes: int) -> None:
        """A fresh upstream classifier, for training one on other classes.

        Draws from torch's generator.
        """
        raise NotImplementedError

    def keep_only(self, use: Use) -> None:
        """Drop what neither the maps nor the embedding (whichever is used) needs, such as the
        upstream classifier.

        What is left are the parameters that the published counts mean, and every one of them gets a
        gradient.
        """
        raise NotImplementedError


def require_pyramid(backbone: Backbone) -> None:
    """Dense tasks need maps at growing strides; a plain ViT has them all at one."""
    if len(backbone.strides) != LEVELS or list(backbone.strides) != sorted(set(backbone.strides)):
        raise UserError(
            "Detection and segmentation need a backbone with four maps at growing strides, but"
            f" {backbone.name} has strides {backbone.strides}; take a hierarchical one, such as"
            " resnet50, swin_t or efficientnet_lite0"
        )
