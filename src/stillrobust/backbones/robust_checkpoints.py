"""Rows of facts: robust vision transformers and ConvNeXts of RobustBench.

Sources: the package robustbench 1.1.1, model_zoo/imagenet.py and model_zoo/architectures/, its
leaderboard and its licence, which covers weights without one of their own. Clean accuracies are its
own, on 5,000 images. The two DeiTs' are left out: its leaderboard and its model_info differ.
"""

from stillrobust.backbones.checkpoint_facts import IMAGENET_MEAN, IMAGENET_STD, Checkpoint

_SINGH = (
    "Singh et al. 2023, Revisiting Adversarial Training for ImageNet: Architectures, Training and"
    " Generalization across Threat Models"
)
_LIU = (
    "Liu et al. 2023, A Comprehensive Study on Robustness of Image Classification Models:"
    " Benchmarking and Rethinking"
)
_ADVERSARIAL = "Linf adversarial training, ε = 4/255"
_IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
_NONE = ((0.0,), (1.0,))  # the model takes images of 0..1


def _robustbench(
    architecture: str,
    weights: str,
    name: str,
    technique: str,
    paper: str,
    url: str,
    file: str,
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET,
    top1: float | None = None,
) -> Checkpoint:
    mean, std = normalization
    return Checkpoint(
        architecture,
        weights,
        technique,
        "MIT",
        paper,
        f"robustbench 1.1.1, {name}",
        file=file,
        url=url,
        mean=mean,
        std=std,
        top1=top1,
    )


def _drive(
    architecture: str,
    weights: str,
    name: str,
    paper: str,
    identity: str,
    top1: float,
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET,
) -> Checkpoint:
    return _robustbench(
        architecture,
        weights,
        name,
        _ADVERSARIAL,
        paper,
        f"https://drive.usercontent.google.com/download?id={identity}&export=download&confirm=t",
        f"{name}.pt",
        normalization,
        top1,
    )


def _singh(
    architecture: str,
    name: str,
    identity: str,
    top1: float,
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = _NONE,
) -> Checkpoint:
    name = f"Singh2023Revisiting_{name}-ConvStem"
    return _drive(architecture, "singh2023_linf", name, _SINGH, identity, top1, normalization)


def _tian(size: str) -> Checkpoint:
    letter = size[0]
    file = f"tian2022deeper-deit-{letter}.pth"
    return _robustbench(
        f"deit_{size}_patch16_224",
        "tian2022",
        f"Tian2022Deeper_DeiT-{letter.upper()}",
        "augmentation against common corruptions",
        "Tian et al. 2022, Deeper Insights into the Robustness of ViTs towards Common Corruptions",
        f"https://github.com/RobustBench/robustbench/releases/download/v1.1.1-test/{file}",
        file,
    )


ROBUST_ROWS = (
    _singh("convnext_t_cvst", "ConvNeXt-T", "1-FjtOF6LJ3-bf4VezsmWwncCxYSx-USP", 0.7272),
    _singh("convnext_s_cvst", "ConvNeXt-S", "1-ZrMYajCCnrtV4oT0wa3qJJoQy1nUSnL", 0.7410),
    _singh("convnext_b_cvst", "ConvNeXt-B", "1-lE-waaVvfL7lgBrydmZIM9UJimmHnVe", 0.7590),
    _singh("vit_s_cvst", "ViT-S", "1-1sUYXnj6bDXacIKI3KKqn4rlkmL-ZI2", 0.7256, _IMAGENET),
    _singh("vit_b_cvst", "ViT-B", "1-JBbfi_eH3tKMXObvPPHprrZae0RiQGT", 0.7630),
    _drive(
        "convnext_base",
        "liu2023_linf",
        "Liu2023Comprehensive_ConvNeXt-B",
        _LIU,
        "10-nSm-qUftvfKXHeOAakBQl8rxm-jCbk",
        0.7602,
    ),
    _drive(
        "convnext_large",
        "liu2023_linf",
        "Liu2023Comprehensive_ConvNeXt-L",
        _LIU,
        "1dIPLNfdQtAnqZrKPyuy3_zDI-FVgJ2FH",
        0.7802,
    ),
    _drive(
        "swin_b",
        "liu2023_linf",
        "Liu2023Comprehensive_Swin-B",
        _LIU,
        "1-4mtxQCkThJUVdS3wvQ6NnmMZuySqR3c",
        0.7616,
    ),
    _robustbench(
        "xcit_small_12_p16_224",
        "debenedetti2022_linf",
        "Debenedetti2022Light_XCiT-S12",
        _ADVERSARIAL,
        "Debenedetti et al. 2022, A Light Recipe to Train Robust Vision Transformers",
        "https://github.com/RobustBench/robustbench/releases/download/v1.1/"
        "debenedetti2022light-xcit-s-imagenet-linf.pth.tar",
        "debenedetti2022light-xcit-s-imagenet-linf.pth.tar",
        _NONE,
        0.7234,
    ),
    _tian("small"),
    _tian("base"),
)
"""Adversarially trained models (Linf), and two DeiTs trained against common corruptions."""
