"""Where official datasets are downloaded from: URL, size, checksum and content of every archive."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stillrobust.data.official.extraction import Limits
from stillrobust.data.official.layout import ADE20K_FOLDER, CIFAR10_C_FOLDER, CIFAR10_FOLDER
from stillrobust.grid import GROUPS


@dataclass(frozen=True)
class Archive:
    """One archive of a dataset.

    Attributes:
        url: Official address.
        size: Bytes, or ``None`` if not published.
        limits: Upper limits for its content; also the free space that is required.
        contents: Names at its top level. If all exist, the archive was unpacked.
        sha256: Hex digest, if published.
        md5: Hex digest, for servers that do not publish a SHA-256.
        folder: Subfolder of the dataset that it is unpacked into.
    """

    url: str
    size: int | None
    limits: Limits
    contents: tuple[str, ...]
    sha256: str | None = None
    md5: str | None = None
    folder: str = ""

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rpartition("/")[2]


# Sizes and SHA-256: tensorflow/datasets, url_checksums/{coco2017,ade20k,cifar10_corrupted}.txt; of
# CIFAR-10: keras/datasets/cifar10.py and torchvision/datasets/cifar.py (its MD5,
# c58f30108f718f92721af3b95e74349a, is of the same file). MD5 of ImageNet-C: Zenodo's page, record
# 2235448, with sizes in whole GB: 7, 7, 21, 12. Limits are rounded up.
_COCO = "http://images.cocodataset.org/"
_ZENODO = "https://zenodo.org/records/"
_COCO_2017 = (
    Archive(
        _COCO + "annotations/annotations_trainval2017.zip",
        252_907_541,
        Limits(1_200_000_000, 20),
        ("annotations",),
        sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
    Archive(
        _COCO + "zips/val2017.zip",
        815_585_330,
        Limits(900_000_000, 5_100),
        ("val2017",),
        sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
    Archive(
        _COCO + "zips/train2017.zip",
        19_336_861_798,
        Limits(20_000_000_000, 119_000),
        ("train2017",),
        sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
)
_ADE20K = Archive(
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    967_382_037,
    Limits(1_500_000_000, 45_000),
    (ADE20K_FOLDER,),
    sha256="7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
)
_CIFAR10 = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    170_498_071,
    Limits(200_000_000, 50),
    (CIFAR10_FOLDER,),
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
_CIFAR10_C = Archive(
    _ZENODO + "2535967/files/CIFAR-10-C.tar",
    2_918_471_680,
    Limits(3_000_000_000, 50),
    (CIFAR10_C_FOLDER,),
    sha256="c72763e101c723b7c507b96205f7e938912a5d587376173b825850cf3cb876a7",
)
_IMAGENET_C = tuple(
    Archive(
        f"{_ZENODO}2235448/files/{group}.tar",
        None,
        Limits(gigabytes * 1_000_000_000, 1_100_000),
        GROUPS[group],
        md5=md5,
        folder="ImageNet-C",
    )
    for group, gigabytes, md5 in (
        ("noise", 23, "e80562d7f6c3f8834afb1ecf27252745"),
        ("blur", 9, "2d8e81fdd8e07fef67b9334fa635e45c"),
        ("weather", 14, "33ffea4db4d93fe4a428c40a6ce0c25d"),
        ("digital", 9, "89157860d7b10d5797849337ca2e5c03"),
    )
)

ARCHIVES: Mapping[str, tuple[Archive, ...]] = {
    "coco": _COCO_2017,
    "ade20k": (_ADE20K,),
    "cifar10": (_CIFAR10,),
    "cifar10_c": (_CIFAR10, _CIFAR10_C),
    "imagenet_c": _IMAGENET_C,
}
IMAGENET_ADVICE = (
    "ImageNet needs an account: request access on https://image-net.org/download-images, download"
    " ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and unpack them to train/<wnid>/*.JPEG"
    " and val/<wnid>/*.JPEG (torchvision.datasets.ImageNet does both); Kaggle's copy of the"
    " challenge is read as it is"
)


def fetch_advice(name: str, also: str = "") -> Callable[[Path], str]:
    """The advice for a dataset that `stillrobust data fetch` downloads.

    Args:
        name: Key of ``ARCHIVES``.
        also: A further sentence, in which ``{root}`` stands for the folder.

    Returns:
        A function from the dataset's folder to the advice.
    """

    def advice(root: Path) -> str:
        return (
            f"`stillrobust data fetch {name} {root}` gets what is missing; move away what is"
            f" damaged first.{also.format(root=root)}"
        )

    return advice
