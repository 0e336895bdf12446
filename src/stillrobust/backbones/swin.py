"""Swin Transformer backbones: torchvision's modules, computing what the official code computes.

The official detection backbone (SwinTransformer/Swin-Transformer-Object-Detection,
mmdet/models/backbones/swin_transformer.py) differs from the classifier in three ways. The image is
padded with zeros at the right and the bottom to whole patches. Each of the four outputs has its own
LayerNorm. Windows shift on every map, whereas the classifier does not shift a map of one window,
which at 224 px is the last stage.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.swin_transformer import (
    ShiftedWindowAttention,
    SwinTransformer,
    SwinTransformerBlock,
    shifted_window_attention,
)

from stillrobust.backbones.base import Backbone, Output
from stillrobust.backbones.layouts import SWIN_LAYOUTS

PATCH = 4  # pixels; Liu et al. 2021, section 3.1
# added to the attention between tokens that only the shift made neighbours (BasicLayer.forward)
MASKED = -100.0


@dataclass(frozen=True)
class SwinShape:
    """The sizes of a Swin (Liu et al. 2021, section 3.3)."""

    embed: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int
    drop_path: float
    """Rate in the training of the upstream classifier."""


# Liu et al. 2021, section 3.3; drop path of microsoft/Swin-Transformer configs/swin/*.yaml.
SHAPES: dict[str, SwinShape] = {
    "swin_t": SwinShape(96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 0.2),
    "swin_s": SwinShape(96, (2, 2, 18, 2), (3, 6, 12, 24), 7, 0.3),
    "swin_b": SwinShape(128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 0.5),
    "swin_b_384": SwinShape(128, (2, 2, 18, 2), (4, 8, 16, 32), 12, 0.5),
    # Ours: 0.81 M parameters; shallow, since it has to learn from some thousands of images.
    "swin_mini": SwinShape(24, (1, 1, 2, 1), (1, 2, 4, 8), 4, 0.0),
}


class SwinBackbone(Backbone):
    """A Swin with torchvision's module names (Liu et al. 2021).

    Images (B, 3, H, W) of any size -> normalized outputs of the four stages, at strides 4, 8, 16
    and 32. ``output_norms`` are the LayerNorms of the detection backbone, identities at first.

    Args:
        name: Name of the architecture.
        model: torchvision's Swin.
    """

    def __init__(self, name: str, model: SwinTransformer) -> None:
        width = model.head.in_features
        channels = tuple(width >> shift for shift in (3, 2, 1, 0))
        super().__init__(
            name,
            model,
            channels=channels,
            strides=(4, 8, 16, 32),
            embed_dim=width,
            layouts=SWIN_LAYOUTS,
            classifier=("norm", "head"),
        )
        # eps 1e-5, as the official ones
        self.output_norms = nn.ModuleList(nn.LayerNorm(count) for count in channels)

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> normalized outputs of the four stages, (B, C_i, H/s_i, W/s_i)."""
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, -width % PATCH, 0, -height % PATCH))
        maps = []
        for place, part in enumerate(self.model.features):  # type: ignore[arg-type]
            # even places: the patch embedding, then the mergings between the stages
            if place % 2 == 0:
                x = part(x)
                continue
            x = dense_stage(part, x)
            maps.append(self.output_norms[place // 2](x).permute(0, 3, 1, 2))
        return maps

    def embedding_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the mean of the last stage's normalized tokens, (B, embed_dim)."""
        model = self.model
        tokens = model.norm(model.features(x))  # type: ignore[operator]
        return model.flatten(model.avgpool(model.permute(tokens)))  # type: ignore[operator, no-any-return]

    def logits_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits of torchvision's own forward, (B, classes)."""
        return self.model(x)  # type: ignore[no-any-return]

    def set_drop_path(self, rate: float) -> None:
        """Rates rise linearly with depth, from 0 at the first block to ``rate`` at the last."""
        blocks = [
            module for module in self.model.modules() if isinstance(module, SwinTransformerBlock)
        ]
        for place, block in enumerate(blocks):
            block.stochastic_depth.p = rate * place / (len(blocks) - 1)

    def reset_classifier(self, classes: int) -> None:
        """Replace ``head``, initialized as torchvision's Swin."""
        self.model.head = nn.Linear(self.embed_dim, classes)
        nn.init.trunc_normal_(self.model.head.weight, std=0.02)  # as torchvision's SwinTransformer
        nn.init.zeros_(self.model.head.bias)

    def keep_only(self, output: Output) -> None:
        """Drop the classifier, and the final norm (maps) or the output norms (embedding)."""
        self.model.head = nn.Identity()
        if output != "embedding":
            self.model.norm = nn.Identity()
        else:
            self.output_norms = nn.ModuleList()


def dense_stage(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Apply the blocks of a stage, with windows that shift on maps of any size.

    Args:
        blocks: torchvision's ``SwinTransformerBlock``s.
        x: Tokens (B, h, w, C).

    Returns:
        Tokens (B, h, w, C).
    """
    for block in blocks:
        assert isinstance(block, SwinTransformerBlock)
        attention = block.attn
        small = any(
            size <= window for size, window in zip(x.shape[1:3], attention.window_size, strict=True)
        )
        if small and any(attention.shift_size):
            x = x + block.stochastic_depth(shift_small(attention, block.norm1(x)))
            x = x + block.stochastic_depth(block.mlp(block.norm2(x)))
        else:
            x = block(x)
    return x


def shift_small(attention: ShiftedWindowAttention, x: Tensor) -> Tensor:
    """Shifted-window attention on a map that one window spans, which torchvision does not shift.

    The map is rolled outside of torchvision's function, and the mask is added to the bias. This is
    all that torchvision's own shift does.

    Args:
        attention: The attention module of a block.
        x: Tokens (B, h, w, C).

    Returns:
        Tokens (B, h, w, C).
    """
    batch, height, width, _ = x.shape
    (rows, columns), (down, right) = attention.window_size, attention.shift_size
    x = functional.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    mask = shift_mask((x.shape[1], x.shape[2]), (rows, columns), (down, right)).to(x)
    bias = attention.get_relative_position_bias() + mask.unsqueeze(1).repeat(batch, 1, 1, 1)
    x = shifted_window_attention(
        torch.roll(x, (-down, -right), (1, 2)),
        attention.qkv.weight,
        attention.proj.weight,
        bias,
        attention.window_size,
        attention.num_heads,
        shift_size=[0, 0],
        attention_dropout=attention.attention_dropout,
        dropout=attention.dropout,
        qkv_bias=attention.qkv.bias,
        proj_bias=attention.proj.bias,
        training=attention.training,
    )
    return torch.roll(x, (down, right), (1, 2))[:, :height, :width].contiguous()


def shift_mask(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """The attention mask of a rolled map.

    Args:
        size: (h, w) of the map, in tokens.
        window: (rows, columns) of a window.
        shift: (down, right), tokens that the map was rolled by.

    Returns:
        (windows, tokens, tokens): 0 between neighbours before the roll, ``MASKED`` between others.
    """
    # along an axis the roll joins the end of the map (region 1) and its beginning (region 2)
    regions = [
        (torch.arange(length) >= length - span).int()
        + (torch.arange(length) >= length - moved).int()
        for length, span, moved in zip(size, window, shift, strict=True)
    ]
    region = 3 * regions[0][:, None] + regions[1][None, :]
    windows = region.view(
        size[0] // window[0], window[0], size[1] // window[1], window[1]
    ).transpose(1, 2)
    windows = windows.reshape(-1, window[0] * window[1])
    return (windows[:, :, None] != windows[:, None, :]) * MASKED


def build_swin(name: str) -> SwinBackbone:
    """Build one of ``SHAPES``, weights drawn from torch's generator."""
    shape = SHAPES[name]
    model = SwinTransformer(
        [PATCH, PATCH],
        shape.embed,
        list(shape.depths),
        list(shape.heads),
        [shape.window, shape.window],
        stochastic_depth_prob=shape.drop_path,
    )
    return SwinBackbone(name, model)
