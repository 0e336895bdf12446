"""The row of facts about published weights, and the constants that rows share."""

from dataclasses import dataclass

# red, green and blue of images in 0..1; torchvision's and timm's constants
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# MadryLab/robustness keeps its attacker and its normalization beside the model
WRAPPERS = ("attacker.", "normalizer.")
OPENMMLAB = (
    "head.",
    "neck.",
    "rpn_head.",
    "roi_head.",
    "bbox_head.",
    "decode_head.",
    "auxiliary_head.",
    "data_preprocessor.",
)


@dataclass(frozen=True)
class Checkpoint:
    """One published file of weights, or one that ``stillrobust robustify`` wrote."""

    architecture: str
    weights: str
    """Its name in a spec: ``ARCHITECTURE(weights='WEIGHTS')``."""
    technique: str
    """How the weights were trained, in a few words."""
    licence: str
    paper: str
    source: str
    """Source of these facts."""
    file: str
    """The file's name in the cache; in a package, a pattern."""
    url: str = ""
    """Address for ``checkpoints fetch``; empty if the file has no address or is in a package."""
    by_hand: str = ""
    """How to get a file without an address."""
    package: str = ""
    """The pip package that holds the file."""
    sha256: str = ""
    """Hex digits; only the first eight if they are known from the file's name alone."""
    megabytes: float | None = None
    container: str = ""
    """Entry of the file that holds the tensors; empty if the file is a plain state dict."""
    prefix: str = ""
    """Prefix of every key."""
    may_differ: tuple[str, ...] = ()
    """Beginnings of keys in the file that no backbone needs."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    clamp: bool = False
    """Images are clamped to 0..1 before normalization, which matters to attacks alone."""
    classes: int = 1000
    image_size: int = 224
    """Side of the crop that ``top1`` was measured on, in pixels."""
    top1: float | None = None
    """Published ImageNet-1k accuracy, fraction."""
    imagenet_c: float | None = None
    """Published ImageNet-C accuracy, fraction: the mean over 15 corruptions x 5 severities."""
    mce: float | None = None
    """Published mean corruption error relative to AlexNet, fraction."""

    @property
    def name(self) -> str:
        """``ARCHITECTURE/WEIGHTS``, which ``checkpoints show`` and ``fetch`` take."""
        return f"{self.architecture}/{self.weights}"

    @property
    def spec(self) -> str:
        """The spec, as studies and ``--backbone`` take it."""
        return f"{self.architecture}(weights={self.weights!r})"
