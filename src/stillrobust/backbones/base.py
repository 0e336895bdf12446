"""The base class of backbones: normalization, four maps or one embedding, and freezing."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from stillrobust.backbones.layouts import Layout
from stillrobust.errors import UserError

LEVELS = 4  # Mask R-CNN's FPN and UPerNet both take four maps, strides 4 to 32
Output = Literal["maps", "normed_maps", "embedding"]
"""What a task uses; ``normed_maps`` also passes a plain ViT's maps through its last norm."""


class Backbone(nn.Module):
    """A whole upstream model, its ImageNet classifier included, that normalizes its own input.

    Images are float (B, 3, H, W), RGB 0..1. ``forward`` returns four maps (B, C_i, ceil(H/s_i),
    ceil(W/s_i)), finest first; ``embed`` returns (B, embed_dim), the input of the upstream
    classifier; ``classify`` returns its logits (B, classes). A family of architectures overrides
    ``maps_of``, ``embedding_of`` and ``logits_of``, which take normalized images, and
    ``keep_only``.

    Args:
        name: Name of the architecture.
        model: The upstream model.
        channels: C_i, channels of the four maps.
        strides: s_i, pixels of the image for a pixel of each map.
        embed_dim: Length of the embedding.
        layouts: Key layouts of weight files that can be loaded.
        classifier: Modules of ``model`` that no map needs. The last one is the linear classifier;
            those before it make the embedding.
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
        self.classifier = classifier
        self.absent: tuple[str, ...] = ()
        """Modules of the classifier that the weight file lacked."""
        self.native_size = (64, 64)
        """A size (H, W) of images that the model computes; that of its training if only that."""
        self.clamp = False
        self.frozen = False
        self.norm_eval = False
        """BatchNorm layers stay in evaluation mode in training."""
        self.register_buffer("pixel_mean", torch.zeros(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.ones(1, 3, 1, 1), persistent=False)

    def set_preprocessing(
        self, mean: tuple[float, ...], std: tuple[float, ...], clamp: bool = False
    ) -> None:
        """Set the normalization (x - mean) / std of images x in 0..1.

        Args:
            mean: Red, green and blue, or one value for all.
            std: Red, green and blue, or one value for all.
            clamp: Clamp images to 0..1 first, as adversarially trained models do.
        """
        self.clamp = clamp
        for buffer, values in ((self.pixel_mean, mean), (self.pixel_std, std)):
            buffer.copy_(torch.tensor(values).view(1, -1, 1, 1).expand(1, 3, 1, 1))

    def preprocessing(self) -> dict[str, Any]:
        """The arguments of ``set_preprocessing`` that give the present normalization."""
        mean, std = (
            tuple(buffer.flatten().tolist()) for buffer in (self.pixel_mean, self.pixel_std)
        )
        return {"mean": mean, "std": std, "clamp": self.clamp}

    def freeze(self) -> None:
        """Freeze the backbone for fixed-feature transfer.

        Parameters get no gradient. BatchNorm, dropout and drop path stay in evaluation mode, also
        after ``train()``.
        """
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Set training or evaluation mode, as ``nn.Module.train``.

        A frozen backbone stays in evaluation mode, and so does BatchNorm with ``norm_eval``.

        Args:
            mode: Whether to train.

        Returns:
            The backbone itself.
        """
        super().train(mode and not self.frozen)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize images (B, 3, H, W) of 0..1: (x - mean) / std, per channel."""
        images = images.clamp(0, 1) if self.clamp else images
        return (images - self.pixel_mean) / self.pixel_std

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the four maps of images.

        Args:
            images: Float (B, 3, H, W), RGB 0..1.

        Returns:
            Four maps (B, C_i, ceil(H/s_i), ceil(W/s_i)), finest first.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.maps_of(self.normalize(images))

    def embed(self, images: Tensor) -> Tensor:
        """Compute the pooled features that the upstream classifier takes.

        Args:
            images: Float (B, 3, H, W), RGB 0..1.

        Returns:
            Embeddings (B, embed_dim).

        Raises:
            UserError: If the weight file lacked a module that makes the embedding.
        """
        self._require(self.classifier[:-1])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.embedding_of(self.normalize(images))

    def classify(self, images: Tensor) -> Tensor:
        """Compute the logits of the upstream classifier.

        Args:
            images: Float (B, 3, H, W), RGB 0..1.

        Returns:
            Logits (B, classes).

        Raises:
            UserError: If the weight file lacked the classifier.
        """
        self._require(self.classifier)
        return self.logits_of(self.normalize(images))

    def _require(self, parts: tuple[str, ...]) -> None:
        missing = [part for part in parts if part in self.absent]
        if missing:
            raise UserError(
                f"{self.name} has to classify here, but its weight file lacks"
                f" {', '.join(missing)}; take a file of the whole upstream model, or a task that"
                " needs maps alone"
            )

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """``forward`` on normalized images (B, 3, H, W): four maps (B, C_i, H/s_i, W/s_i)."""
        raise NotImplementedError

    def embedding_of(self, x: Tensor) -> Tensor:
        """``embed`` on normalized images (B, 3, H, W): (B, embed_dim)."""
        raise NotImplementedError

    def logits_of(self, x: Tensor) -> Tensor:
        """``classify`` on normalized images (B, 3, H, W): (B, classes)."""
        raise NotImplementedError

    def require_size(self, size: tuple[int, int] | None) -> None:
        """Check that the backbone computes images of a size.

        Args:
            size: (H, W); ``None`` for maps of images of any size.

        Raises:
            UserError: If it does not; the message names the sizes that it computes.
        """

    def set_drop_path(self, rate: float) -> None:
        """Set stochastic depth in training (Huang et al. 2016).

        Args:
            rate: Probability that the last block is skipped; it falls linearly to 0 at the first.

        Raises:
            UserError: If the architecture has no drop path.
        """
        raise UserError(
            f"{self.name} has no drop path, but the recipe asks for {rate:g}; take a swin_*, or"
            " another recipe"
        )

    def set_windows(self, side: int) -> None:
        """Restrict attention to windows, but in four blocks of a plain ViT, as ViTDet does.

        Args:
            side: Side of the windows, in patches.

        Raises:
            UserError: If the architecture is no plain ViT with positions of its own.
        """
        raise UserError(
            f"{self.name} has no attention that window={side} could restrict; take a vit_* of timm,"
            " or window=0"
        )

    def reset_classifier(self, classes: int) -> None:
        """Replace the upstream classifier by a new one, drawn from torch's generator.

        Args:
            classes: Its number of classes.
        """
        raise NotImplementedError

    def keep_only(self, output: Output) -> None:
        """Drop the modules that an output does not need, such as the upstream classifier.

        Every parameter that is left gets a gradient. Published parameter counts refer to these.

        Args:
            output: What stays.
        """
        raise NotImplementedError
