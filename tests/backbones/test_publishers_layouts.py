"""Tiny models in the official layouts of ViTs and ConvNeXts, read strictly.

The expected tensors are those of timm's own conversions, which only its hub's files reach
otherwise, or the outputs are those of the authors' modules.
"""

import copy
import warnings

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from timm.models import convnext, eva, vision_transformer
from torch import nn

from stillrobust.backbones import ARCHITECTURES, CHECKPOINTS, build_backbone
from stillrobust.backbones.conv_stem import CONV_STEMS
from stillrobust.backbones.reader import read_weights
from stillrobust.backbones.timm_models import TimmBackbone
from stillrobust.backbones.weight_loading import load_weights
from stillrobust.errors import UserError

VIT = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
NONE = {**VIT, "num_classes": 0}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "num_classes": 5}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tiny(name, **options):
    """A small timm model with random values everywhere, as a backbone."""
    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    config = model.pretrained_cfg
    return TimmBackbone(name, model, tuple(config["mean"]), tuple(config["std"])).eval()


def load(backbone, path, key=""):
    """Load a file into a backbone whose values are all others before."""
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.fill_(7)
    said = load_weights(backbone, read_weights(path, key), path)
    return said, backbone.model.state_dict()


def same(found, expected, without=()):
    assert found.keys() == expected.keys()
    for name in found:
        if not name.startswith(without):
            assert torch.equal(found[name], expected[name]), name


def state_of(backbone):
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


# ---- timm's names: DeiT, MAE, DINO


def test_deit_and_its_distilled_variant(tmp_path):
    for name in ("deit_small_patch16_224", "deit_small_distilled_patch16_224"):
        backbone = tiny(name, **VIT)
        state = state_of(backbone)
        torch.save({"model": state}, tmp_path / "deit.pth")
        same(load(backbone, tmp_path / "deit.pth")[1], state)


def test_mae_without_its_decoder_and_classifier(tmp_path):
    backbone = tiny("vit_base_patch16_224", **VIT)
    state = state_of(backbone)
    encoder = {name: value for name, value in state.items() if not name.startswith("head.")}
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 5, 8),
        "decoder_blocks.0.norm1.weight": torch.zeros(8),
    }
    torch.save({"model": encoder | decoder}, tmp_path / "mae.pth")
    said, found = load(backbone, tmp_path / "mae.pth")
    same(found, state, without=("head.",))
    assert "without head" in said
    with pytest.raises(UserError, match="weight file lacks head"):
        backbone.classify(IMAGES)
    torch.save({"model": {**encoder, "surprise": torch.zeros(1)}}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"1 left over \(model\.surprise\)"):
        load(backbone, tmp_path / "mae.pth")
    del encoder["norm.weight"], encoder["blocks.1.norm2.bias"]
    torch.save({"model": encoder}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"2 missing \(model\.blocks\.1\.norm2\.bias, model\.norm"):
        load(backbone, tmp_path / "mae.pth")


def test_dino_full_checkpoint(tmp_path):
    """The student's names have `module.`; both have a projection head beside the backbone."""
    backbone = tiny("vit_small_patch16_224", **NONE)
    state = state_of(backbone)
    head = {"head.mlp.0.weight": torch.zeros(3), "head.last_layer.weight_g": torch.zeros(3)}
    teacher = {f"backbone.{name}": value for name, value in state.items()} | head
    student = {f"module.{name}": torch.zeros_like(value) for name, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 1}, tmp_path / "dino.pth")
    with pytest.raises(UserError, match=r"'teacher', 'student'.*key='teacher'"):
        load(backbone, tmp_path / "dino.pth")
    same(load(backbone, tmp_path / "dino.pth", "teacher")[1], state)


# ---- DINOv2 and DINOv3


def dinov2_state(backbone):
    """DINOv2's names: positions for the class token, too, and registers of another name."""
    state = {**state_of(backbone), "mask_token": torch.zeros(1, 32)}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        first = torch.randn(1, 1, 32)
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
    return state


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
@pytest.mark.parametrize("chunked", [False, True])
def test_dinov2(tmp_path, name, chunked):
    """A published file, and a teacher's whose blocks are in two chunks, beside two heads."""
    backbone = tiny(name, **{**NONE, "img_size": 28})
    theirs = dinov2_state(backbone)
    expected = vision_transformer.checkpoint_filter_fn(dict(theirs), backbone.model)
    if chunked:
        theirs = {
            "backbone."
            + key.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.1.1."): value
            for key, value in theirs.items()
        }
        theirs |= {"dino_head.mlp.0.weight": torch.zeros(2), "ibot_head.a": torch.zeros(2)}
        torch.save({"teacher": theirs}, tmp_path / "dinov2.pth")
    else:
        torch.save(theirs, tmp_path / "dinov2.pth")
    same(load(backbone, tmp_path / "dinov2.pth")[1], expected)


def test_the_gated_mlp_of_the_largest_dinov2(tmp_path):
    backbone = tiny("vit_giant_patch14_dinov2", **{**NONE, "img_size": 28})
    expected = state_of(backbone)
    theirs = {
        name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value
        for name, value in expected.items()
    }
    torch.save({**theirs, "mask_token": torch.zeros(1, 32)}, tmp_path / "giant.pth")
    same(load(backbone, tmp_path / "giant.pth")[1], expected)


def dinov3_state(backbone):
    theirs = {}
    for name, value in state_of(backbone).items():
        if name.endswith("q_bias"):
            block = name.removesuffix("q_bias")
            whole = [value, torch.randn_like(value), backbone.model.state_dict()[f"{block}v_bias"]]
            theirs[f"{block}qkv.bias"] = torch.cat(whole)
            mask = torch.ones(3 * len(value))
            mask[len(value) : 2 * len(value)] = 0
            theirs[f"{block}qkv.bias_mask"] = mask
        elif not name.endswith("v_bias"):
            name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
            theirs[name.replace("reg_token", "storage_tokens")] = value
    return theirs | {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(8)}


def test_dinov3_has_a_masked_bias(tmp_path):
    backbone = tiny("vit_small_patch16_dinov3_qkvb", **NONE)
    expected = state_of(backbone)
    theirs = dinov3_state(backbone)
    converted = eva.checkpoint_filter_fn(dict(theirs), backbone.model)
    same(converted, expected)  # timm's own conversion agrees with the writer above
    torch.save(theirs, tmp_path / "dinov3.pth")
    same(load(backbone, tmp_path / "dinov3.pth")[1], expected)
    theirs["blocks.1.attn.qkv.bias_mask"].fill_(1)  # a bias that timm's attention does not have
    torch.save(theirs, tmp_path / "dinov3.pth")
    with pytest.raises(UserError, match=r"left over \(model\.blocks\.1\.attn\.qkv\.bias"):
        load(backbone, tmp_path / "dinov3.pth")


# ---- CLIP and SigLIP


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """openai/CLIP clip/model.py, ResidualAttentionBlock."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x):
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """openai/CLIP clip/model.py, VisionTransformer, with its names."""

    def __init__(self, width=32, patch=16, tokens=5, depth=2, heads=2, out=6):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.proj = nn.Parameter(torch.randn(width, out))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        x = self.ln_pre(x + self.positional_embedding).transpose(0, 1)
        return self.ln_post(self.transformer.resblocks(x).transpose(0, 1)[:, 0])


class Clip(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Tower()
        self.token_embedding = nn.Embedding(7, 4)
        self.positional_embedding = nn.Parameter(torch.randn(3, 4))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("input_resolution", torch.tensor(32))

    def forward(self, image):
        return self.visual(image)


@pytest.mark.parametrize("form", ["TorchScript", "state dict", "open_clip"])
def test_openai_clip(tmp_path, form):
    """The image tower in float16, beside the text tower; the projection is not a classifier."""
    torch.manual_seed(1)
    model = Clip().half().float().eval()  # float16 values, computed in float32
    path = tmp_path / "clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "TorchScript":
            torch.jit.save(torch.jit.trace(copy.deepcopy(model), IMAGES).half(), path)
        else:
            prefix = "module." if form == "open_clip" else ""
            state = {f"{prefix}{name}": value for name, value in model.half().state_dict().items()}
            torch.save({"state_dict": state} if prefix else state, path)
            model.float()
    backbone = tiny("vit_base_patch16_clip_quickgelu_224", **NONE)
    said, _ = load(backbone, path)
    assert "OpenAI layout" in said
    with torch.inference_mode():
        expected = model.visual(IMAGES)
        features = backbone.model.forward_features(IMAGES)[:, 0]
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="weight file lacks head"):
        backbone.classify(IMAGES)


SMALL = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
}


def hugging_face(kind):
    """A model of transformers, its folder's name of the encoder, and timm's counterpart."""
    torch.manual_seed(2)
    if kind == "vit":
        return hf.ViTForImageClassification(hf.ViTConfig(**SMALL, num_labels=5)), tiny(
            "vit_base_patch16_224", **VIT
        )
    if kind == "clip":
        text = {**SMALL, "vocab_size": 9, "projection_dim": 6}
        text = {k: v for k, v in text.items() if k not in ("image_size", "patch_size")}
        config = hf.CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=6)
        return hf.CLIPModel(config), tiny("vit_base_patch16_clip_quickgelu_224", **NONE)
    if kind == "siglip":
        text = {k: v for k, v in SMALL.items() if k not in ("image_size", "patch_size")}
        config = hf.SiglipConfig(text_config={**text, "vocab_size": 9}, vision_config=SMALL)
        return hf.SiglipModel(config), tiny("vit_base_patch16_siglip_224", **NONE)
    if kind == "convnext":
        config = hf.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_labels=5)
        return hf.ConvNextForImageClassification(config), tiny("convnext_tiny", **CONVNEXT)
    registers = "registers" in kind
    config = (hf.Dinov2WithRegistersConfig if registers else hf.Dinov2Config)(**SMALL)
    model = (hf.Dinov2WithRegistersModel if registers else hf.Dinov2ForImageClassification)(config)
    name = f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"
    return model, tiny(name, **NONE, patch_size=16)


@pytest.mark.parametrize(
    "kind", ["vit", "clip", "siglip", "dinov2", "dinov2 with registers", "convnext"]
)
def test_hugging_face(tmp_path, kind):
    model, backbone = hugging_face(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(tmp_path)
    said, _ = load(backbone, tmp_path / "model.safetensors")
    assert "Hugging Face layout" in said
    with torch.inference_mode():
        if kind in ("vit", "convnext"):
            found, expected = backbone.model(IMAGES), model(IMAGES).logits
        elif kind == "siglip":
            found = backbone.model(IMAGES)
            expected = model.vision_model(IMAGES).pooler_output
        else:
            inner = getattr(model, "vision_model", getattr(model, "dinov2", model))
            found = backbone.model.forward_features(IMAGES)[:, 0]
            expected = inner(IMAGES).pooler_output
    # timm's first SigLIP has the exact GELU where transformers has its approximation by tanh
    tolerance = 2e-3 if kind == "siglip" else 1e-4
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


def flax_arrays(kind, width=32, depth=2, heads=2, classes=5):
    """The names and shapes of big_vision's (SigLIP) and vision_transformer's (AugReg) arrays."""
    generator = np.random.default_rng(3)
    arrays = {}

    def put(name, *shape):
        arrays[name] = generator.normal(size=shape).astype("float32")

    def put_block(prefix, attention, mlp, norms):
        for name in ("query", "key", "value"):
            put(f"{prefix}{attention}/{name}/kernel", width, heads, width // heads)
            put(f"{prefix}{attention}/{name}/bias", heads, width // heads)
        put(f"{prefix}{attention}/out/kernel", heads, width // heads, width)
        put(f"{prefix}{attention}/out/bias", width)
        for norm in norms:
            put(f"{prefix}{norm}/scale", width)
            put(f"{prefix}{norm}/bias", width)
        put(f"{prefix}{mlp}/Dense_0/kernel", width, 4 * width)
        put(f"{prefix}{mlp}/Dense_0/bias", 4 * width)
        put(f"{prefix}{mlp}/Dense_1/kernel", 4 * width, width)
        put(f"{prefix}{mlp}/Dense_1/bias", width)

    siglip = kind != "augreg"
    root = "params/img/" if siglip else ""
    put(f"{root}embedding/kernel", 16, 16, 3, width)
    put(f"{root}embedding/bias", width)
    put(f"{root}Transformer/encoder_norm/scale", width)
    put(f"{root}Transformer/encoder_norm/bias", width)
    if siglip:
        put(f"{root}pos_embedding", 1, 4, width)
        put("params/t", 1)
        put("params/b", 1)
        put("params/txt/Embed_0/embedding", 9, width)
        put(f"{root}MAPHead_0/probe", 1, 1, width)
        put_block(
            f"{root}MAPHead_0/", "MultiHeadDotProductAttention_0", "MlpBlock_0", ("LayerNorm_0",)
        )
    else:
        put("Transformer/posembed_input/pos_embedding", 1, 5, width)
        put("cls", 1, 1, width)
        put("head/kernel", width, classes)
        put("head/bias", classes)
    for place in range(depth):
        put_block(
            f"{root}Transformer/encoderblock_{place}/",
            f"MultiHeadDotProductAttention_{0 if siglip else 1}",
            f"MlpBlock_{0 if siglip else 3}",
            ("LayerNorm_0", "LayerNorm_1") if siglip else ("LayerNorm_0", "LayerNorm_2"),
        )
    if kind == "scanned":
        blocks = [name for name in arrays if "encoderblock_0/" in name]
        for name in blocks:
            parts = [arrays.pop(name.replace("_0/", f"_{one}/", 1)) for one in range(depth)]
            arrays[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(parts)
    return arrays


@pytest.mark.parametrize("kind", ["siglip", "scanned", "augreg"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_big_vision(tmp_path, kind, save):
    """timm's own reader of such files is the reference."""
    path = tmp_path / "arrays.npz"
    save(path, **flax_arrays(kind))
    augreg = kind == "augreg"
    name, options = (
        ("vit_base_patch16_224", VIT) if augreg else ("vit_base_patch16_siglip_224", NONE)
    )
    reference = tiny(name, **options)
    reference.model.load_pretrained(str(path))
    said, found = load(tiny(name, **options), path)
    assert "big_vision layout" in said
    same(found, reference.model.state_dict())


# ---- ConvNeXt


@pytest.mark.parametrize("classes", [5, 9])
@pytest.mark.parametrize("dinov3", [False, True])
def test_official_convnext(tmp_path, classes, dinov3):
    """The file's classes are taken over; DINOv3's has no classifier, and a norm for each stage."""
    other = tiny("convnext_tiny", **{**CONVNEXT, "num_classes": classes})
    expected = state_of(other)
    theirs = {}
    for name, value in expected.items():
        for ours, official in (
            ("stem.", "downsample_layers.0."),
            ("head.norm.", "norm."),
            ("head.fc.", "head."),
            ("conv_dw", "dwconv"),
            ("mlp.fc", "pwconv"),
            (".blocks.", "."),
        ):
            name = name.replace(ours, official)
        if ".downsample." in name:
            name = name.replace("stages.", "downsample_layers.").replace("downsample.", "")
        theirs[name] = value
    if dinov3:
        theirs = {name: value for name, value in theirs.items() if not name.startswith("head.")}
        theirs |= {"norms.3.weight": theirs["norm.weight"], "norms.0.bias": torch.zeros(8)}
    else:
        same(convnext.checkpoint_filter_fn(dict(theirs), other.model), expected)
    torch.save(theirs if dinov3 else {"model": theirs}, tmp_path / "convnext.pth")
    backbone = tiny("convnext_tiny", **CONVNEXT)
    said, found = load(backbone, tmp_path / "convnext.pth")
    assert "official layout" in said
    if dinov3:
        assert "without head.fc" in said
        same(
            {n: v for n, v in found.items() if "head.fc" not in n},
            {n: v for n, v in expected.items() if "head.fc" not in n},
        )
    else:
        same(found, expected)


# ---- RobustBench


def test_a_normalized_model_brings_its_normalization(tmp_path):
    """`normalize.mean` and `normalize.std` beside `model.*`: they are used, and nothing else is."""
    backbone = tiny("convnext_tiny", **CONVNEXT)
    state = state_of(backbone)
    wrapped = {f"module.model.{name}": value for name, value in state.items()}
    wrapped |= {
        "module.normalize.mean": torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1),
        "module.normalize.std": torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1),
    }
    torch.save({"state_dict": wrapped}, tmp_path / "robust.pt")
    same(load(backbone, tmp_path / "robust.pt")[1], state)
    found = backbone.preprocessing()
    assert found["mean"] == pytest.approx((0.1, 0.2, 0.3))
    assert found["std"] == pytest.approx((0.5, 0.6, 0.7))
    for damaged in (torch.zeros(1, 3, 1, 1), torch.ones(1, 4, 1, 1)):
        wrapped["module.normalize.std"] = damaged
        torch.save({"state_dict": wrapped}, tmp_path / "robust.pt")
        with pytest.raises(UserError, match=r"left over \(model\.normalize\.mean"):
            load(backbone, tmp_path / "robust.pt")


def test_conv_stems():
    """RobustBench's names of the stems; Singh et al. 2023 replace nothing else of the model."""
    for name, (architecture, _) in CONV_STEMS.items():
        with torch.device("meta"):
            trunk = {
                key
                for key in timm.create_model(architecture).state_dict()
                if not key.startswith(("stem.", "patch_embed.proj."))
            }
        if name not in ("convnext_t_cvst", "vit_s_cvst"):
            continue  # larger; their stems are built by the same function
        backbone, _ = build_backbone(f"{name}(weights='random')")
        keys = set(backbone.model.state_dict())
        prefix = "patch_embed.proj.stem." if name.startswith("vit") else "stem.stem."
        assert trunk == {key for key in keys if not key.startswith(prefix)}
        assert f"{prefix}0.weight" in keys
        assert f"{prefix}1.bias" in keys
        with torch.inference_mode():
            assert backbone.eval().classify(torch.rand(1, 3, 224, 224)).shape == (1, 1000)
    sizes = backbone.model.patch_embed.proj.stem
    assert [layer.out_channels for layer in sizes if isinstance(layer, nn.Conv2d)] == [
        48,
        96,
        192,
        384,
        384,
    ]


# ---- rows


def test_every_row_names_an_architecture_and_its_source():
    for row in CHECKPOINTS.values():
        if row.architecture in ARCHITECTURES:
            continue
        assert timm.is_model(row.architecture), row.name
        assert row.url or row.by_hand, row.name
        assert row.source, row.name
        assert row.weights not in ("imagenet", "random"), row.name  # the hub's and no weights


def test_a_bare_name_of_timm_means_its_hub():
    """Rows of timm's architectures are chosen by name."""
    with pytest.raises(UserError, match='stillrobust checkpoints fetch "timm:convnext_tiny"'):
        build_backbone("convnext_tiny")
    with pytest.raises(UserError, match="stillrobust checkpoints fetch convnext_tiny/in22k"):
        build_backbone("convnext_tiny(weights='in22k')")
