"""Key layouts of publishers' files for timm's architectures: plain ViTs, DINOv3 and ConvNeXt.

timm's names are those of DeiT, MAE and DINO. The other layouts are described where their authors
define the modules: DINOv2 and DINOv3 (models/vision_transformer.py), openai/CLIP (clip/model.py),
google-research/big_vision and vision_transformer (models/vit.py), ConvNeXt (models/convnext.py),
transformers (models/*/modeling_*.py).
"""

import re

import torch
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stillrobust.backbones.layouts import Layout, Rules, join_query_key_value
from stillrobust.backbones.reader import State

# beside the encoder of self-supervised training: masks, decoders and projection heads
_PRETRAINING = ("mask_token", "decoder_")
_HEADS = r"(dino_head|ibot_head|head|classifier)\."
_TEXT = (
    r"(transformer|token_embedding|ln_final|text_model|text_projection|visual_projection|text)\.|"
    r"(positional_embedding|text_projection|logit_scale|logit_bias)$|"
    r"(input_resolution|context_length|vocab_size)$"
)


def timm_layouts(model: nn.Module) -> tuple[Layout, ...]:
    """Return the layouts of files that can be loaded into a timm model.

    Args:
        model: timm's model.

    Returns:
        timm's own layout first, then those of publishers.
    """
    own = next(iter(model.state_dict()))
    if isinstance(model, VisionTransformer):
        return _vision_transformer_layouts(model, own)
    if isinstance(model, Eva) and model.reg_token is not None:
        return Layout("timm", own), _DINOV3
    if isinstance(model, ConvNeXt):
        return Layout("timm", own), _CONVNEXT, _HF_CONVNEXT
    return (Layout("timm", own),)


# ---- plain vision transformers


def _vision_transformer_layouts(model: VisionTransformer, own: str) -> tuple[Layout, ...]:
    # DINOv2 trains its blocks in chunks, and its largest one has a gated MLP
    chunk = r"blocks\.\d+\.(\d+)\."
    rules: Rules = (
        (r"blocks\.(?:\d+\.)?(\d+)\.mlp\.w12\.", r"blocks.\1.mlp.fc1."),
        (r"blocks\.(?:\d+\.)?(\d+)\.mlp\.w3\.", r"blocks.\1.mlp.fc2."),
        (chunk, r"blocks.\1."),
    )
    fold = _fold_positions if model.reg_token is not None else _unchanged
    classifier: Rules = ((r"classifier\.", "head."),) if isinstance(model.head, nn.Linear) else ()
    beside = rf"{_HEADS}|{_TEXT}"
    return (
        Layout("timm", own, rules, unused=_PRETRAINING, beside=beside),
        Layout(
            "DINOv2 with registers",
            "register_tokens",
            ((r"register_tokens", "reg_token"), *rules),
            unused=_PRETRAINING,
            beside=_HEADS,
            convert=fold,
        ),
        Layout(
            "OpenAI",
            "class_embedding",
            _OPENAI,
            unused=("proj",),
            beside=_TEXT,
            convert=_shape_tokens,
        ),
        Layout(
            "Hugging Face",
            "embeddings.cls_token",
            _HF_VIT,
            unprefixed=classifier,
            unused=("embeddings.mask_token",),
            beside="" if classifier else _HEADS,
            convert=lambda state: fold(join_query_key_value(state)),
        ),
        Layout(
            "Hugging Face",
            "embeddings.position_embedding.weight",
            _HF_CLIP,
            unused=("embeddings.position_ids",),
            beside=_TEXT,
            convert=_from_hf_clip,
        ),
        Layout(
            "big_vision",
            "embedding.kernel",
            beside=r"(params\.)?(txt\.|t$|b$)",
            convert=lambda state: from_big_vision(state, model),
        ),
    )


def _unchanged(state: State) -> State:
    return state


def _fold_positions(state: State) -> State:
    """Add the class token's position to the token: timm's positions are of patches alone."""
    position, token = state.get("pos_embed"), state.get("cls_token")
    if position is None or token is None or position.ndim != 3 or token.ndim != 3:
        return state
    return {**state, "cls_token": token + position[:, :1], "pos_embed": position[:, 1:]}


_BLOCK = r"(?:transformer\.resblocks|encoder\.layers?)\.(\d+)\."


def _block_rules(inside: Rules) -> Rules:
    return [(_BLOCK + theirs, rf"blocks.\1.{ours}") for theirs, ours in inside]


_OPENAI: Rules = (
    (r"class_embedding$", "cls_token"),
    (r"positional_embedding$", "pos_embed"),
    (r"conv1\.", "patch_embed.proj."),
    (r"ln_pre\.", "norm_pre."),
    (r"ln_post\.", "norm."),
    *_block_rules(
        (
            (r"ln_(\d)\.", r"norm\2."),
            (r"attn\.in_proj_", "attn.qkv."),
            (r"attn\.out_proj\.", "attn.proj."),
            (r"mlp\.c_fc\.", "mlp.fc1."),
            (r"mlp\.c_proj\.", "mlp.fc2."),
        )
    ),
)
_HF_VIT: Rules = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"layernorm\.", "norm."),
    *_block_rules(
        (
            (r"attention\.attention\.", "attn."),
            (r"attention\.output\.dense\.", "attn.proj."),
            (r"layernorm_before\.", "norm1."),
            (r"layernorm_after\.", "norm2."),
            (r"intermediate\.dense\.", "mlp.fc1."),
            (r"output\.dense\.", "mlp.fc2."),
            (r"layer_scale(\d)\.lambda1", r"ls\2.gamma"),
            (r"mlp\.weights_in\.", "mlp.fc1."),
            (r"mlp\.weights_out\.", "mlp.fc2."),
            (r"(norm\d|mlp\.fc\d)\.", r"\2."),
        )
    ),
)
_HF_CLIP: Rules = (
    (r"embeddings\.class_embedding$", "cls_token"),
    (r"embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"pre_layrnorm\.", "norm_pre."),  # transformers spells it so
    (r"post_layernorm\.", "norm."),
    (r"head\.probe$", "attn_pool.latent"),
    (r"head\.attention\.in_proj_", "attn_pool.in_proj."),
    (r"head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"head\.layernorm\.", "attn_pool.norm."),
    (r"head\.mlp\.", "attn_pool.mlp."),
    *_block_rules(
        (
            (r"layer_norm(\d)\.", r"norm\2."),
            (r"self_attn\.q_proj\.", "attn.query."),
            (r"self_attn\.k_proj\.", "attn.key."),
            (r"self_attn\.v_proj\.", "attn.value."),
            (r"self_attn\.out_proj\.", "attn.proj."),
            (r"mlp\.", "mlp."),
        )
    ),
)


def _shape_tokens(state: State) -> State:
    """Give CLIP's token (C) and positions (N, C) the leading dimensions of timm's."""
    state = dict(state)
    for name, dimensions in (("cls_token", 1), ("pos_embed", 2)):
        value = state.get(name)
        if value is not None and value.ndim == dimensions:
            state[name] = value.reshape(1, -1, value.shape[-1])
    return state


def _from_hf_clip(state: State) -> State:
    """Join query, key and value, and split those of SigLIP's pooling: timm has q beside k and v."""
    state = _shape_tokens(join_query_key_value(state))
    for part in ("weight", "bias"):
        joined = state.pop(f"attn_pool.in_proj.{part}", None)
        if joined is not None:
            query, key, value = joined.chunk(3)
            state[f"attn_pool.q.{part}"] = query
            state[f"attn_pool.kv.{part}"] = torch.cat([key, value])
    return state


# ---- big_vision's and vision_transformer's arrays

_ARRAYS: Rules = (
    (r"cls$", "cls_token"),
    (r"(Transformer\.posembed_input\.)?pos_embedding$", "pos_embed"),
    (r"embedding\.", "patch_embed.proj."),
    (r"Transformer\.encoder_norm\.", "norm."),
    (r"MAPHead_0\.probe$", "attn_pool.latent"),
    (r"MAPHead_0\.MultiHeadDotProductAttention_0\.", "attn_pool."),
    (r"MAPHead_0\.LayerNorm_0\.", "attn_pool.norm."),
    (r"MAPHead_0\.MlpBlock_0\.Dense_0\.", "attn_pool.mlp.fc1."),
    (r"MAPHead_0\.MlpBlock_0\.Dense_1\.", "attn_pool.mlp.fc2."),
    *(
        (rf"Transformer\.encoderblock_(\d+)\.{theirs}", rf"blocks.\1.{ours}")
        for theirs, ours in (
            (r"LayerNorm_0\.", "norm1."),
            (r"LayerNorm_[12]\.", "norm2."),  # 1 of big_vision, 2 of vision_transformer
            (r"MultiHeadDotProductAttention_[01]\.", "attn."),
            (r"MlpBlock_[03]\.Dense_0\.", "mlp.fc1."),
            (r"MlpBlock_[03]\.Dense_1\.", "mlp.fc2."),
        )
    ),
)
_SCANNED = "Transformer.encoderblock."  # all blocks in one array, along its first dimension


def from_big_vision(state: State, model: nn.Module) -> State:
    """Convert Flax's arrays: kernels are (in, out) or (rows, columns, in, out), heads are apart.

    Args:
        state: Arrays by name, with dots between its parts.
        model: timm's model, whose shapes decide where a name alone does not.

    Returns:
        The tensors by timm's names.
    """
    flat: State = {}
    for key, value in state.items():
        if key.startswith(_SCANNED) and value.ndim:
            rest = key.removeprefix(_SCANNED)
            flat |= {
                f"Transformer.encoderblock_{place}.{rest}": one for place, one in enumerate(value)
            }
        else:
            flat[key] = value
    own = model.state_dict()
    renamed: State = {}
    for key, value in flat.items():
        name = _rename_array(key)
        if key.endswith(".kernel"):
            value = _kernel_as_weight(name, value)
        elif name.endswith(".bias") and value.ndim == 2:  # (heads, width of a head)
            value = value.reshape(-1)
        elif name == "pos_embed" and value.ndim == 4:
            value = value.flatten(1, 2)
        renamed[name] = value
    joined = join_query_key_value(renamed)
    for part in ("weight", "bias"):
        key_value = joined.pop(f"attn_pool.qkv.{part}", None)
        if key_value is not None and f"attn_pool.q.{part}" in own:
            count = len(own[f"attn_pool.q.{part}"])
            joined |= {
                f"attn_pool.q.{part}": key_value[:count],
                f"attn_pool.kv.{part}": key_value[count:],
            }
    return joined


def _rename_array(key: str) -> str:
    for pattern, replacement in _ARRAYS:
        key, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            break
    key = key.replace(".out.", ".proj.")
    return re.sub(r"\.(kernel|scale)$", ".weight", key)


def _kernel_as_weight(name: str, kernel: Tensor) -> Tensor:
    """Convert Flax's kernel to PyTorch's weight: the output comes first."""
    if kernel.ndim == 4:  # (rows, columns, in, out)
        return kernel.permute(3, 2, 0, 1)
    if kernel.ndim == 3 and name.endswith(".proj.weight"):  # (heads, width of a head, out)
        return kernel.flatten(0, 1).T
    if kernel.ndim == 3:  # (in, heads, width of a head)
        return kernel.flatten(1).T
    return kernel.T if kernel.ndim == 2 else kernel


# ---- DINOv3


def _from_dinov3(state: State) -> State:
    """Split the bias of query, key and value: that of the key is masked, and timm has none."""
    state = dict(state)
    for key in [name for name in state if name.endswith(".attn.qkv.bias")]:
        block = key.removesuffix("qkv.bias")
        mask = state.pop(f"{block}qkv.bias_mask", None)
        masked = mask is not None and not mask.nan_to_num(1).chunk(3)[1].any()
        if masked or not state[key].chunk(3)[1].any():  # otherwise the strict loading reports it
            query, _, value = state.pop(key).chunk(3)
            state |= {f"{block}q_bias": query, f"{block}v_bias": value}
    return state


_DINOV3 = Layout(
    "DINOv3",
    "storage_tokens",
    (
        (r"storage_tokens", "reg_token"),
        (r"blocks\.(?:\d+\.)?(\d+)\.ls(\d)\.gamma$", r"blocks.\1.gamma_\2"),
        (r"blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    ),
    unused=("mask_token", "rope_embed.", "local_cls_norm."),
    beside=_HEADS,
    convert=_from_dinov3,
)


# ---- ConvNeXt


def _convnext_rules(block: str, names: Rules) -> Rules:
    return [(rf"{block}{theirs}", rf"stages.\1.blocks.\2.{ours}") for theirs, ours in names]


_CONVNEXT = Layout(
    "official",
    "downsample_layers.0.0.weight",
    (
        (r"downsample_layers\.0\.", "stem."),
        (r"downsample_layers\.(\d)\.", r"stages.\1.downsample."),
        *_convnext_rules(
            r"stages\.(\d)\.(\d+)\.",
            ((r"dwconv\.", "conv_dw."), (r"pwconv(\d)\.", r"mlp.fc\3."), (r"", "")),
        ),
        (r"norm\.", "head.norm."),
        (r"head\.", "head.fc."),
    ),
    unused=("norms.",),  # DINOv3's: the last one is `norm` once more
    beside=_HEADS,
)
_HF_CONVNEXT = Layout(
    "Hugging Face",
    "embeddings.patch_embeddings.weight",
    (
        (r"embeddings\.patch_embeddings\.", "stem.0."),
        (r"embeddings\.layernorm\.", "stem.1."),
        (r"encoder\.stages\.(\d)\.downsampling_layer\.", r"stages.\1.downsample."),
        *_convnext_rules(
            r"encoder\.stages\.(\d)\.layers\.(\d+)\.",
            (
                (r"dwconv\.", "conv_dw."),
                (r"pwconv(\d)\.", r"mlp.fc\3."),
                (r"layernorm\.", "norm."),
                (r"layer_scale_parameter$", "gamma"),
            ),
        ),
        (r"layernorm\.", "head.norm."),
    ),
    unprefixed=((r"classifier\.", "head.fc."),),
)
