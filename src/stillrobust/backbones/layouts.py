"""Key layouts: rules that turn the tensor names of other libraries into the model's own.

A layout is recognized by one key that only it has, after any prefix that training wrappers add (see
``stillrobust.backbones.containers``). Rules are regular expressions. A key without a rule keeps its
name, so that the strict loading reports it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from stillrobust.backbones.reader import State

OUTPUT_NORMS = "output_norms."  # of a detection Swin, outside of the model itself
Rules = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of a family of architectures."""

    name: str
    signature: str
    """A key, without prefix, that no other layout of the family has."""
    rules: Rules = ()
    """(pattern, replacement) pairs; the first that matches the beginning of a key is applied."""
    unprefixed: Rules = ()
    """The same for keys without the prefix: the classifier of OpenMMLab and transformers."""
    unused: tuple[str, ...] = ()
    """Beginnings of keys below the prefix that no backbone needs: masks, decoders."""
    beside: str = ""
    """Pattern of keys without the prefix that belong to other parts, such as CLIP's text tower."""
    convert: Callable[[State], State] = lambda state: state
    """Changes of the tensors themselves, after renaming."""


def rename_key(key: str, rules: Rules) -> str:
    """Rename a key by the first rule that matches its beginning.

    Args:
        key: Name of a tensor.
        rules: (pattern, replacement) pairs.

    Returns:
        The new name; the key itself if no rule matches.
    """
    for pattern, replacement in rules:
        new, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            return new
    return key


# ---- ResNet

_HF_RESNET: Rules = (
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    *(
        (rf"encoder\.stages\.{stage}\.layers\.(\d+)\.{theirs}", rf"layer{stage + 1}.\1.{ours}")
        for stage in range(4)
        for theirs, ours in (
            *((rf"layer\.{place}\.convolution\.", f"conv{place + 1}.") for place in range(3)),
            *((rf"layer\.{place}\.normalization\.", f"bn{place + 1}.") for place in range(3)),
            (r"shortcut\.convolution\.", "downsample.0."),
            (r"shortcut\.normalization\.", "downsample.1."),
        )
    ),
)
# The official layout is torchvision's, which timm and OpenMMLab's backbones share.
RESNET_LAYOUTS = (
    Layout("torchvision", "layer1.0.conv1.weight", unprefixed=((r"head\.fc\.", "fc."),)),
    Layout(
        "Hugging Face",
        "embedder.embedder.convolution.weight",
        _HF_RESNET,
        unprefixed=((r"classifier\.1\.", "fc."),),
    ),
)


# ---- Swin


def _stages(pattern: str, inside: Rules) -> Rules:
    """Rules for blocks and mergings: stage i is feature 2 i + 1, its merging feature 2 i + 2."""
    rules = []
    for stage in range(4):
        prefix = pattern.format(stage=stage)
        rules += [
            (rf"{prefix}\.blocks\.(\d+)\.{theirs}", rf"features.{2 * stage + 1}.\1.{ours}")
            for theirs, ours in inside
        ]
        rules.append((rf"{prefix}\.downsample\.", f"features.{2 * stage + 2}."))
    return rules


_EMBED: Rules = (
    (r"patch_embed\.proj(ection)?\.", "features.0.0."),
    (r"patch_embed\.norm\.", "features.0.2."),
)
_OUTPUT: Rules = ((r"norm(\d)\.", rf"{OUTPUT_NORMS}\1."),)
_OFFICIAL: Rules = (
    *_EMBED,
    *_stages(r"layers\.{stage}", ((r"mlp\.fc1\.", "mlp.0."), (r"mlp\.fc2\.", "mlp.3."), ("", ""))),
)
_OPENMMLAB: Rules = (
    *_EMBED,
    *_stages(
        r"stages\.{stage}",
        (
            (r"attn\.w_msa\.", "attn."),
            (r"ffn\.layers\.0\.0\.", "mlp.0."),
            (r"ffn\.layers\.1\.", "mlp.3."),
            ("", ""),
        ),
    ),
)
_HF_SWIN: Rules = (
    (r"embeddings\.patch_embeddings\.projection\.", "features.0.0."),
    (r"embeddings\.norm\.", "features.0.2."),
    *_stages(
        r"encoder\.layers\.{stage}",
        (
            (r"layernorm_before\.", "norm1."),
            (r"layernorm_after\.", "norm2."),
            (r"attention\.self\.", "attn."),
            (r"attention\.output\.dense\.", "attn.proj."),
            (r"intermediate\.dense\.", "mlp.0."),
            (r"output\.dense\.", "mlp.3."),
        ),
    ),
    *(
        (rf"hidden_states_norms\.stage{stage + 1}\.", f"{OUTPUT_NORMS}{stage}.")
        for stage in range(4)
    ),
    (r"layernorm\.", "norm."),
)


def _shift_mergings(state: State) -> State:
    """Move mergings to the previous stage: timm counts them to the next one."""
    return {
        re.sub(
            r"^features\.([468])\.(norm|reduction)",
            lambda m: f"features.{int(m[1]) - 2}.{m[2]}",
            key,
        ): value
        for key, value in state.items()
    }


def _from_openmmlab(state: State) -> State:
    """Reorder the mergings as the official code has them, and rename a classifier's only norm.

    OpenMMLab merges by ``nn.Unfold`` in the order (c, row, column), the official code in the order
    (column, row, c). mmsegmentation's tools/model_converters/swin2mmseg.py converts the other way.
    """
    state = dict(state)
    for key, value in state.items():
        if (
            re.match(r"features\.[246]\.(reduction\.weight|norm\.(weight|bias))$", key)
            and value.shape[-1] % 4 == 0
        ):
            by_channel = value.reshape(*value.shape[:-1], -1, 2, 2)
            state[key] = by_channel.transpose(-1, -3).reshape(value.shape)
    if f"{OUTPUT_NORMS}0.weight" not in state:  # mmcls: the norm of its one output
        state = {
            rename_key(key, ((rf"{OUTPUT_NORMS}3\.", "norm."),)): value
            for key, value in state.items()
        }
    return state


def join_query_key_value(state: State) -> State:
    """Concatenate query, key and value, which other libraries store as three tensors.

    Args:
        state: Tensors by name; the three are called ``query``, ``key`` and ``value``.

    Returns:
        The tensors with ``qkv`` in their place.
    """
    joined: State = {}
    for key, value in state.items():
        match = re.match(r"(.*attn(?:_pool)?)\.(query|key|value)\.(weight|bias)$", key)
        if not match:
            joined[key] = value
        elif match[2] == "query":
            parts = [
                state.get(f"{match[1]}.{part}.{match[3]}") for part in ("query", "key", "value")
            ]
            present = [part for part in parts if part is not None]
            joined[f"{match[1]}.qkv.{match[3]}"] = torch.cat(present)
    return joined


SWIN_LAYOUTS = (
    Layout(
        "torchvision", "features.1.0.attn.qkv.weight", ((r"norm(\d)\.", rf"{OUTPUT_NORMS}\1."),)
    ),
    # timm's layout is the official one except for the mergings: it has none in stage 0
    Layout(
        "timm",
        "layers.3.downsample.reduction.weight",
        (*_OFFICIAL, (r"head\.fc\.", "head.")),
        convert=_shift_mergings,
    ),
    Layout("official", "layers.0.downsample.reduction.weight", (*_OFFICIAL, *_OUTPUT)),
    Layout(
        "OpenMMLab",
        "stages.0.blocks.0.attn.w_msa.qkv.weight",
        (*_OPENMMLAB, *_OUTPUT),
        unprefixed=((r"head\.fc\.", "head."),),
        convert=_from_openmmlab,
    ),
    Layout(
        "Hugging Face",
        "embeddings.patch_embeddings.projection.weight",
        _HF_SWIN,
        unprefixed=((r"classifier\.", "head."),),
        convert=join_query_key_value,
    ),
)


# ---- EfficientNet-Lite

_OUTER: Rules = (
    (r"_conv_stem\.", "conv_stem."),
    (r"_bn0\.", "bn1."),
    (r"_conv_head\.", "conv_head."),
    (r"_bn1\.", "bn2."),
    (r"_fc\.", "classifier."),
)
# the first stage has no expansion, so that timm numbers its layers differently
_FIRST = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
_OTHER = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}


def lite_to_timm(state: State, repeats: tuple[int, ...]) -> State:
    """Rename the tensors of an EfficientNet-Lite file to timm's names.

    The file numbers its blocks consecutively, timm numbers them by stage.

    Args:
        state: Tensors of the file by name.
        repeats: Blocks of each stage.

    Returns:
        The tensors by timm's names.
    """
    places = [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]
    named: State = {}
    for key, value in state.items():
        match = re.match(r"_blocks\.(\d+)\._(\w+?)\.(.*)$", key)
        if match and int(match[1]) < len(places):
            stage, block = places[int(match[1])]
            layer = (_OTHER if stage else _FIRST).get(match[2], match[2])
            named[f"blocks.{stage}.{block}.{layer}.{match[3]}"] = value
        else:
            named[rename_key(key, _OUTER)] = value
    return named
