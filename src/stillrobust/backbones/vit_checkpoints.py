"""Rows of facts: published weights of plain vision transformers and of ConvNeXt.

Architectures have timm's names. ``top1`` is that of the file's own classifier. Self-supervised and
image-text models have none, and their published linear-probe or zero-shot scores belong to other
classifiers, so they are left out. None of these models was trained to be robust to corruptions.
"""

from stillrobust.backbones.checkpoint_facts import Checkpoint

# openai/CLIP clip/clip.py, _transform
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_META = "https://dl.fbaipublicfiles.com"
_STANDARD = "standard training"


def _deit(size: str, file: str, digits: str, top1: float, side: int = 224) -> Checkpoint:
    """Digits: of the SHA-256, in the file's name, which torch.hub checks."""
    return Checkpoint(
        f"deit_{size}_patch16_{side}",
        "in1k",
        "standard training, with distillation" if "distilled" in size else _STANDARD,
        "Apache-2.0",
        "Touvron et al. 2021, Training data-efficient image transformers & distillation through"
        " attention",
        "facebookresearch/deit README_deit.md",
        file=f"{file}-{digits}.pth",
        url=f"{_META}/deit/{file}-{digits}.pth",
        sha256=digits,
        container="model",
        image_size=side,
        top1=top1,
    )


def _mae(size: str, patch: int, digits: str) -> Checkpoint:
    """The encoder alone. The README names MD5 sums, of which a row has no field."""
    return Checkpoint(
        f"vit_{size}_patch{patch}_224",
        "mae",
        "self-supervised on ImageNet-1k (masked autoencoder)",
        "CC-BY-NC-4.0",
        "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners",
        f"facebookresearch/mae README, which states an MD5 that begins with {digits}",
        file=f"mae_pretrain_vit_{size}.pth",
        url=f"{_META}/mae/pretrain/mae_pretrain_vit_{size}.pth",
        container="model",
        may_differ=("decoder_", "mask_token"),
    )


def _dino(architecture: str, name: str) -> Checkpoint:
    return Checkpoint(
        architecture,
        "dino",
        "self-supervised on ImageNet-1k (DINO), without labels",
        "Apache-2.0",
        "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers",
        "facebookresearch/dino README",
        file=f"dino_{name}_pretrain.pth",
        url=f"{_META}/dino/dino_{name}_pretrain/dino_{name}_pretrain.pth",
    )


def _dinov2(size: str, letter: str, registers: bool) -> Checkpoint:
    file = f"dinov2_vit{letter}14_{'reg4_' if registers else ''}pretrain.pth"
    return Checkpoint(
        f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2",
        "lvd142m",
        f"self-supervised on LVD-142M (DINOv2){', with four registers' if registers else ''}"
        f"{'' if letter == 'g' else '; distilled from ViT-g'}",
        "Apache-2.0",
        "Darcet et al. 2024, Vision Transformers Need Registers"
        if registers
        else "Oquab et al. 2023, DINOv2: Learning Robust Visual Features without Supervision",
        "facebookresearch/dinov2 README and MODEL_CARD",
        file=file,
        url=f"{_META}/dinov2/dinov2_vit{letter}14/{file}",
        may_differ=("mask_token",),
        image_size=518,
    )


def _dinov3(architecture: str, name: str, digits: str) -> Checkpoint:
    """Digits: in the file's name, which torch.hub compares with the SHA-256."""
    return Checkpoint(
        architecture,
        "lvd1689m",
        "self-supervised on LVD-1689M (DINOv3), distilled from ViT-7B",
        "DINOv3 License",
        "Siméoni et al. 2025, DINOv3",
        "facebookresearch/dinov3 README and dinov3/hub/backbones.py",
        file=f"dinov3_{name}_pretrain_lvd1689m-{digits}.pth",
        by_hand=(
            "accept the licence at https://ai.meta.com/resources/models-and-libraries/"
            "dinov3-downloads/, download the file from the address in the e-mail"
        ),
        sha256=digits,
        image_size=256,
    )


def _clip(architecture: str, name: str, sha256: str) -> Checkpoint:
    return Checkpoint(
        architecture,
        "openai",
        "image-text pairs (CLIP); the image tower, without its projection",
        "MIT",
        "Radford et al. 2021, Learning Transferable Visual Models From Natural Language"
        " Supervision",
        "openai/CLIP clip/clip.py; a TorchScript archive, float16",
        file=f"{name}.pt",
        url=f"https://openaipublic.azureedge.net/clip/models/{sha256}/{name}.pt",
        sha256=sha256,
        prefix="visual.",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


def _siglip(architecture: str, name: str, side: int) -> Checkpoint:
    return Checkpoint(
        architecture,
        "webli",
        "image-text pairs (SigLIP on WebLI); the image tower",
        "Apache-2.0",
        "Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training",
        "google-research/big_vision, SigLIP_demo.ipynb; arrays of NumPy",
        file=f"{name}.npz",
        url=f"https://storage.googleapis.com/big_vision/siglip/{name}.npz",
        prefix="params/img/",
        mean=(0.5,),
        std=(0.5,),
        image_size=side,
    )


def _augreg(size: str, letter: str, recipe: str, fine_tuning: str = "") -> Checkpoint:
    """Addresses: timm's configurations of the same weights, timm/models/vision_transformer.py."""
    stem = f"{letter}_16-i21k-300ep-lr_0.001-{recipe}"
    stem += f"--imagenet2012-steps_20k-lr_{fine_tuning}-res_224" if fine_tuning else ""
    return Checkpoint(
        f"vit_{size}_patch16_224",
        "augreg_in21k_ft" if fine_tuning else "augreg_in21k",
        "supervised on ImageNet-21k with augmentation and regularization (AugReg)"
        f"{', then ImageNet-1k' if fine_tuning else ''}",
        "Apache-2.0",
        "Steiner et al. 2021, How to train your ViT? Data, Augmentation, and Regularization in"
        " Vision Transformers",
        "google-research/vision_transformer; timm's configurations; arrays of NumPy",
        file=f"{stem}.npz",
        url=f"https://storage.googleapis.com/vit_models/augreg/{stem}.npz",
        mean=(0.5,),
        std=(0.5,),
        classes=1000 if fine_tuning else 21843,
    )


def _convnext(size: str, weights: str, file: str, top1: float | None = None) -> Checkpoint:
    return Checkpoint(
        f"convnext_{size}",
        weights,
        {
            "in1k": _STANDARD,
            "in22k": "standard training on ImageNet-22k",
            "in22k_ft": "standard training on ImageNet-22k, then ImageNet-1k",
        }[weights],
        "MIT",
        "Liu et al. 2022, A ConvNet for the 2020s",
        "facebookresearch/ConvNeXt README",
        file=file,
        url=f"{_META}/convnext/{file}",
        container="model",
        classes=21841 if weights == "in22k" else 1000,
        top1=top1,
    )


_TINY = "aug_none-wd_0.03-do_0.0-sd_0.0"
_SMALL = "aug_light1-wd_0.03-do_0.0-sd_0.0"
_BASE = "aug_medium1-wd_0.1-do_0.0-sd_0.0"
VIT_ROWS = (
    _deit("tiny", "deit_tiny_patch16_224", "a1311bcf", 0.722),
    _deit("small", "deit_small_patch16_224", "cd65a155", 0.799),
    _deit("base", "deit_base_patch16_224", "b5f2ef4d", 0.818),
    _deit("base", "deit_base_patch16_384", "8de9b5d1", 0.829, side=384),
    _deit("tiny_distilled", "deit_tiny_distilled_patch16_224", "b40b3cf7", 0.745),
    _deit("small_distilled", "deit_small_distilled_patch16_224", "649709d9", 0.812),
    _deit("base_distilled", "deit_base_distilled_patch16_224", "df68dfff", 0.834),
    _mae("base", 16, "8cad7c"),
    _mae("large", 16, "b8b06e"),
    _mae("huge", 14, "9bdbb0"),
    _dino("vit_small_patch16_224", "deitsmall16"),
    _dino("vit_small_patch8_224", "deitsmall8"),
    _dino("vit_base_patch16_224", "vitbase16"),
    _dino("vit_base_patch8_224", "vitbase8"),
    *(
        _dinov2(size, letter, registers)
        for size, letter in (("small", "s"), ("base", "b"), ("large", "l"), ("giant", "g"))
        for registers in (False, True)
    ),
    _dinov3("vit_small_patch16_dinov3_qkvb", "vits16", "08c60483"),
    _dinov3("vit_base_patch16_dinov3_qkvb", "vitb16", "73cec8be"),
    _dinov3("vit_large_patch16_dinov3_qkvb", "vitl16", "8aa4cbdd"),
    _dinov3("convnext_tiny", "convnext_tiny", "21b726bb"),
    _clip(
        "vit_base_patch32_clip_quickgelu_224",
        "ViT-B-32",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    _clip(
        "vit_base_patch16_clip_quickgelu_224",
        "ViT-B-16",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    ),
    _clip(
        "vit_large_patch14_clip_quickgelu_224",
        "ViT-L-14",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    _siglip("vit_base_patch16_siglip_224", "webli_en_b16_224_63724782", 224),
    _siglip("vit_base_patch16_siglip_256", "webli_en_b16_256_60500360", 256),
    _siglip("vit_large_patch16_siglip_256", "webli_en_l16_256_60552751", 256),
    _augreg("tiny", "Ti", _TINY),
    _augreg("tiny", "Ti", _TINY, "0.03"),
    _augreg("small", "S", _SMALL),
    _augreg("small", "S", _SMALL, "0.03"),
    _augreg("base", "B", _BASE),
    _augreg("base", "B", _BASE, "0.01"),
    _convnext("tiny", "in1k", "convnext_tiny_1k_224_ema.pth", 0.821),
    _convnext("tiny", "in22k", "convnext_tiny_22k_224.pth"),
    _convnext("tiny", "in22k_ft", "convnext_tiny_22k_1k_224.pth", 0.829),
    _convnext("small", "in1k", "convnext_small_1k_224_ema.pth", 0.831),
    _convnext("small", "in22k", "convnext_small_22k_224.pth"),
    _convnext("small", "in22k_ft", "convnext_small_22k_1k_224.pth", 0.846),
    _convnext("base", "in1k", "convnext_base_1k_224_ema.pth", 0.838),
    _convnext("base", "in22k", "convnext_base_22k_224.pth"),
    _convnext("base", "in22k_ft", "convnext_base_22k_1k_224.pth", 0.858),
    _convnext("large", "in1k", "convnext_large_1k_224_ema.pth", 0.843),
    _convnext("large", "in22k", "convnext_large_22k_224.pth"),
    _convnext("large", "in22k_ft", "convnext_large_22k_1k_224.pth", 0.866),
)
"""DeiT, MAE, DINO, DINOv2, DINOv3, CLIP, SigLIP, AugReg and ConvNeXt."""
