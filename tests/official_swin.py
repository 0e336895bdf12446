"""The official Swin, written as functions of a state dict with the official names: the
oracle of our Swin.

After SwinTransformer/Swin-Transformer-Object-Detection mmdet/models/backbones/swin_transformer.py
(dense) and microsoft/Swin-Transformer models/swin_transformer.py (classifier); plain loops, no
torchvision.
"""

import math

import torch
from torch.nn import functional


def random_state(embed, depths, heads, window, classes=1000, dense=False, seed=0):
    """Weights under the official names, loud enough that attention is far from uniform.

    ``dense``: norm0..3, no head.
    """
    g = torch.Generator().manual_seed(seed)
    state = {}

    def linear(name, out, inside, bias=True):
        state[f"{name}.weight"] = torch.randn(out, inside, generator=g) * 1.5 / math.sqrt(inside)
        if bias:
            state[f"{name}.bias"] = torch.randn(out, generator=g) * 0.2

    def norm(name, width):
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=g)
        state[f"{name}.bias"] = 0.2 * torch.randn(width, generator=g)

    linear("patch_embed.proj", embed, 48)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].view(embed, 3, 4, 4)
    norm("patch_embed.norm", embed)
    for i, depth in enumerate(depths):
        width = embed * 2**i
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            norm(f"{name}.norm1", width)
            state[f"{name}.attn.relative_position_bias_table"] = torch.randn(
                (2 * window - 1) ** 2, heads[i], generator=g
            )
            state[f"{name}.attn.relative_position_index"] = position_index(window)
            linear(f"{name}.attn.qkv", 3 * width, width)
            linear(f"{name}.attn.proj", width, width)
            norm(f"{name}.norm2", width)
            linear(f"{name}.mlp.fc1", 4 * width, width)
            linear(f"{name}.mlp.fc2", width, 4 * width)
            if j % 2 and not dense:
                state[f"{name}.attn_mask"] = torch.zeros(1, window**2, window**2)
        if i < 3:
            linear(f"layers.{i}.downsample.reduction", 2 * width, 4 * width, bias=False)
            norm(f"layers.{i}.downsample.norm", 4 * width)
    if dense:
        for i in range(4):
            norm(f"norm{i}", embed * 2**i)
    else:
        norm("norm", 8 * embed)
        linear("head", classes, 8 * embed)
    return state


def position_index(window):
    places = [(row, column) for row in range(window) for column in range(window)]
    step = 2 * window - 1
    return torch.tensor(
        [[(r - a + window - 1) * step + (c - b + window - 1) for a, b in places] for r, c in places]
    )


def norm(state, name, x):
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def windows_of(x, window):
    b, h, w, c = x.shape
    return (
        x.view(b, h // window, window, w // window, window, c)
        .transpose(2, 3)
        .reshape(-1, window * window, c)
    )


def mask_of(h, w, window, shift):
    """As the official BasicLayer makes it: regions are numbered on the padded map, unequal regions
    see each other at -100.
    """
    numbered = torch.zeros(1, h, w, 1)
    count = 0
    for rows in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
        for columns in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
            numbered[:, rows, columns] = count
            count += 1
    numbered = windows_of(numbered, window).squeeze(-1)
    different = numbered[:, None, :] - numbered[:, :, None]
    return torch.where(different == 0, 0.0, -100.0)


def attend(state, name, x, heads, window, shift):
    b, h, w, c = x.shape
    # pad, then roll
    x = functional.pad(
        x, (0, 0, 0, (window - w % window) % window, 0, (window - h % window) % window)
    )
    high, wide = x.shape[1:3]
    x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
    tokens = windows_of(x, window)
    qkv = linear(state, f"{name}.qkv", tokens).view(
        len(tokens), window * window, 3, heads, c // heads
    )
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = (q * (c // heads) ** -0.5) @ k.transpose(-2, -1)
    table = state[f"{name}.relative_position_bias_table"][position_index(window).view(-1)]
    scores = scores + table.view(window * window, window * window, heads).permute(2, 0, 1)
    if shift:
        mask = mask_of(high, wide, window, shift)
        scores = (
            scores.view(b, len(mask), heads, window * window, window * window) + mask[None, :, None]
        )
        scores = scores.view(-1, heads, window * window, window * window)
    tokens = linear(
        state,
        f"{name}.proj",
        (scores.softmax(-1) @ v).transpose(1, 2).reshape(len(tokens), window * window, c),
    )
    x = (
        tokens.view(b, high // window, wide // window, window, window, c)
        .transpose(2, 3)
        .reshape(b, high, wide, c)
    )
    x = torch.roll(x, (shift, shift), (1, 2)) if shift else x
    return x[:, :h, :w]


def merge(state, name, x):
    h, w = x.shape[1:3]
    x = functional.pad(x, (0, 0, 0, w % 2, 0, h % 2))
    x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
    return linear(state, f"{name}.reduction", norm(state, f"{name}.norm", x))


def stages(state, x, depths, heads, window, shifts):
    """The four stages' tokens (B, h, w, C), before any output norm; ``shifts(h, w)`` says whether a
    map is shifted.
    """
    h, w = x.shape[-2:]
    x = functional.pad(x, (0, (4 - w % 4) % 4, 0, (4 - h % 4) % 4))
    x = functional.conv2d(
        x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4
    )
    x = norm(state, "patch_embed.norm", x.permute(0, 2, 3, 1))
    outputs = []
    for i, depth in enumerate(depths):
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            shift = window // 2 if j % 2 and shifts(*x.shape[1:3]) else 0
            x = x + attend(
                state, f"{name}.attn", norm(state, f"{name}.norm1", x), heads[i], window, shift
            )
            hidden = functional.gelu(
                linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.norm2", x))
            )
            x = x + linear(state, f"{name}.mlp.fc2", hidden)
        outputs.append(x)
        if i < 3:
            x = merge(state, f"layers.{i}.downsample", x)
    return outputs


def dense(state, x, depths, heads, window):
    """The detection backbone: four maps (B, C, h, w); it shifts at every size."""
    outputs = stages(state, x, depths, heads, window, lambda h, w: True)
    named = [
        norm(state, f"norm{i}", out)
        if f"norm{i}.weight" in state
        else functional.layer_norm(out, out.shape[-1:])
        for i, out in enumerate(outputs)
    ]
    return [out.permute(0, 3, 1, 2) for out in named]


def classify(state, x, depths, heads, window):
    """The classifier: a map no larger than a window is not shifted."""
    out = stages(state, x, depths, heads, window, lambda h, w: min(h, w) > window)[-1]
    return linear(state, "head", norm(state, "norm", out).flatten(1, 2).mean(1))
