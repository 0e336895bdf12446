"""Attention of a plain ViT restricted to windows, as in ViTDet (Li et al. 2022, section 3).

The last block of each quarter keeps global attention: after blocks 2, 5, 8 and 11 of 12. Windows
are of normalized tokens, those at the border padded with zeros, as in detectron2. Class and
register tokens, which ViTDet does not have, are in every window; their outputs are averaged over
the windows. Positions stay absolute, whereas ViTDet adds relative ones.
"""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

GLOBAL_BLOCKS = 4


class AttentionWindows:
    """Cuts the tokens that attention gets into windows, and joins what it returns.

    Args:
        side: Side of the windows, in patches.
        prefix: Number of class and register tokens.
    """

    def __init__(self, side: int, prefix: int) -> None:
        self.side = side
        self.prefix = prefix
        self.grid = (0, 0)
        """(h, w) of the patches of the present images."""

    def remember_grid(self, module: nn.Module, inputs: Any, patches: Tensor) -> None:
        """Forward hook of the patch embedding, whose output is (B, h, w, C)."""
        self.grid = (patches.shape[1], patches.shape[2])

    def split(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """Forward pre-hook of attention: (B, prefix + h w, C) -> (B windows, prefix + side², C)."""
        (tokens,) = inputs
        side, (height, width) = self.side, self.grid
        patches = tokens[:, self.prefix :].unflatten(1, self.grid)  # type: ignore[no-untyped-call]
        patches = functional.pad(patches, (0, 0, 0, -width % side, 0, -height % side))
        windows = patches.unflatten(2, (-1, side))  # type: ignore[no-untyped-call]
        windows = windows.unflatten(1, (-1, side)).transpose(2, 3)
        windows = windows.flatten(3, 4).flatten(1, 2)  # (B, windows, side², C)
        prefix = tokens[:, None, : self.prefix].expand(-1, windows.shape[1], -1, -1)
        return (torch.cat([prefix, windows], dim=2).flatten(0, 1),)

    def join(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Forward hook of attention: (B windows, prefix + side², C) -> (B, prefix + h w, C)."""
        side, (height, width) = self.side, self.grid
        rows, columns = -(-height // side), -(-width // side)
        windows = output.unflatten(0, (-1, rows * columns))  # type: ignore[no-untyped-call]
        prefix = windows[:, :, : self.prefix].mean(1)
        patches = windows[:, :, self.prefix :].unflatten(2, (side, side))
        patches = patches.unflatten(1, (rows, columns)).transpose(2, 3)
        patches = patches.flatten(3, 4).flatten(1, 2)[:, :height, :width]
        return torch.cat([prefix, patches.flatten(1, 2)], dim=1)


def restrict_attention(model: VisionTransformer, side: int) -> None:
    """Restrict attention to windows in all but ``GLOBAL_BLOCKS`` blocks, by hooks.

    Names and weights of the model do not change.

    Args:
        model: timm's model, made with ``dynamic_img_size``.
        side: Side of the windows, in patches.
    """
    windows = AttentionWindows(side, model.num_prefix_tokens)
    model.patch_embed.register_forward_hook(windows.remember_grid)
    count = len(model.blocks)
    last_of_quarter = {round(count * part / GLOBAL_BLOCKS) - 1 for part in range(1, 5)}
    for place, block in enumerate(model.blocks):
        if place not in last_of_quarter:
            block.attn.register_forward_pre_hook(windows.split)
            block.attn.register_forward_hook(windows.join)
