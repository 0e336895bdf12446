"""Images of any size in timm's architectures: arguments, padding, and what a trial run shows.

timm's defaults are for classification at one size. ``size_options`` are the arguments that allow
others: a ViT then interpolates its positions, bicubically and with antialiasing, from the grid that
it was trained on, without class and register tokens. Layers that cut maps into patches or windows
need whole ones. Images are then padded with zeros at the right and the bottom, after the
normalization, as in the official detection Swin. Nothing is ever resized.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.hiera import Hiera, Reroll
from torch import Tensor, nn
from torch.nn import functional

_DYNAMIC = {"dynamic_img_size": True}
_UNCHECKED = {"strict_img_size": False}
# arguments of ``timm.create_model``, for the modules of timm whose models take them
_OPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("deit", "eva", "vision_transformer", "vision_transformer_hybrid", "vitamin"), _DYNAMIC
    ),
    **dict.fromkeys(
        ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"), _UNCHECKED
    ),
}
# modules whose models resize every image to the size that they were built for
_RESIZING = ("crossvit",)
# Pixels: a trial run has an image that is lower and wider than the model was built for, and a
# multiple of nothing.
TRIAL_HEIGHT = 65


@dataclass(frozen=True)
class SizeLimits:
    """Which images a model computes."""

    multiple: int = 1
    """Images are padded to multiples of it, so that the model computes them."""
    map_multiple: int = 1
    """The same for maps, which have to cover the whole image."""
    fixed: tuple[int, int] | None = None
    """The only size (H, W) that the model computes; ``None`` if it computes all."""
    uncovered: bool = False
    """Whether maps leave out a part of the image, as those of convolutions without padding."""


def module_of(name: str) -> str:
    """timm's module of an architecture, such as ``vision_transformer``: its family."""
    return timm.models.model_entrypoint(name.split(".")[0]).__module__.rsplit(".", 1)[-1]  # type: ignore[no-any-return]


def size_options(name: str) -> dict[str, Any]:
    """The arguments of ``timm.create_model`` with which an architecture takes most sizes."""
    return _OPTIONS.get(module_of(name), {})


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad images with zeros at the right and the bottom.

    Args:
        x: Normalized images (B, 3, H, W).
        multiple: Height and width become multiples of it.
    """
    height, width = x.shape[-2:]
    right, below = -width % multiple, -height % multiple
    return functional.pad(x, (0, right, 0, below)) if right or below else x


def stage_maps(model: nn.Module, x: Tensor, indices: Sequence[int], **options: Any) -> list[Tensor]:
    """timm's maps of the stages or blocks at ``indices``: (B, 3, H, W) -> (B, C_i, h_i, w_i)."""
    if isinstance(model, AnySizeHiera):
        model.set_image_size((x.shape[-2], x.shape[-1]))
    maps: list[Tensor] = model.forward_intermediates(  # type: ignore[operator]
        x, indices=list(indices), output_fmt="NCHW", intermediates_only=True, **options
    )
    return maps


def find_size_limits(
    name: str, model: nn.Module, indices: Sequence[int], strides: Sequence[int]
) -> SizeLimits:
    """Try which images a model computes: as they are, or padded to patches, strides or windows.

    Args:
        name: timm's name.
        model: timm's model; its state does not change.
        indices: Stages or blocks of its maps.
        strides: Strides of these maps.

    Returns:
        The limits with the smallest padding that works.
    """
    height, width = model.pretrained_cfg["input_size"][1:]  # type: ignore[index]
    if module_of(name) in _RESIZING:
        return SizeLimits(fixed=(height, width))
    size = TRIAL_HEIGHT, 2 * width + 1
    runs = 0
    for multiple in dict.fromkeys((1, strides[0], math.lcm(*strides))):
        covers = _maps_cover(model, indices, strides, size, multiple)
        runs = runs or (multiple if covers is not None else 0)
        if covers:
            return SizeLimits(runs, multiple)
    if runs:
        return SizeLimits(runs, runs, uncovered=True)
    windows = math.lcm(height, width)  # of one number of windows, as the model was built
    if _maps_cover(model, indices, strides, size, windows):
        return SizeLimits(windows, windows)
    return SizeLimits(fixed=(height, width))


@torch.no_grad()
def _maps_cover(
    model: nn.Module,
    indices: Sequence[int],
    strides: Sequence[int],
    size: tuple[int, int],
    multiple: int,
) -> bool | None:
    """Whether the maps of a padded image cover the image; ``None`` if the model fails on it."""
    device = next(model.parameters()).device
    training = model.training
    try:
        x = pad_to_multiple(torch.zeros(1, 3, *size, device=device), multiple)
        maps = stage_maps(model.eval(), x, indices)
    except Exception:  # each of timm's architectures fails in its own way
        return None
    finally:
        model.train(training)
    return all(
        have >= -(-side // stride)
        for one, stride in zip(maps, strides, strict=True)
        for have, side in zip(one.shape[-2:], size, strict=True)
    )


class AnySizeHiera(Hiera):  # type: ignore[misc]
    """timm's Hiera (Ryali et al. 2023) on images whose sides are multiples of 32.

    timm builds positions and the order of tokens for one size. Here they follow the image.
    """

    trained_grid: tuple[int, int]
    """(h, w) of the positions, in tokens."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        grid = tuple(self.tokens_spatial_shape)
        if self.pos_embed_win is not None or grid == self.trained_grid:
            return super()._pos_embed(x)  # type: ignore[no-any-return]
        positions = self.pos_embed.unflatten(1, self.trained_grid).permute(0, 3, 1, 2)
        positions = functional.interpolate(positions, size=grid, mode="bicubic", antialias=True)
        return x + positions.flatten(2).transpose(1, 2)

    def forward_features(self, x: Tensor, **options: Any) -> Tensor:
        """(B, 3, H, W) -> tokens of the last stage, (B, N, C)."""
        self.set_image_size((x.shape[-2], x.shape[-1]))
        return super().forward_features(x, **options)  # type: ignore[no-any-return]

    def set_image_size(self, size: tuple[int, int]) -> None:
        """Prepare positions and the order of tokens for images of a size (H, W)."""
        stride = self.patch_embed.proj.stride
        grid = [side // step for side, step in zip(size, stride, strict=True)]
        self.tokens_spatial_shape = grid
        self.mask_spatial_shape = [
            side // step for side, step in zip(grid, self.mask_unit_size, strict=True)
        ]
        self.unroll.size = grid
        self.reroll = Reroll(size, stride, self.unroll.schedule, self.stage_ends, self.q_pool)


def allow_any_size(model: nn.Module) -> None:
    """Let a model of one size take others, if that needs more than ``size_options``."""
    if type(model) is Hiera:
        model.__class__ = AnySizeHiera
        assert isinstance(model, AnySizeHiera)
        model.trained_grid = tuple(model.tokens_spatial_shape)
