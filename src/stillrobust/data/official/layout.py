"""Official datasets: layout and number of images, and errors for incomplete sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stillrobust.data.reading import require_split
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, SEVERITIES
from stillrobust.names import unknown_name_error

COUNTS: Mapping[str, Mapping[str, int]] = {
    "imagenet": {"train": 1_281_167, "val": 50_000},  # Russakovsky et al. 2015, table 2
    "imagenet_c": {"val": 50_000},  # the validation images again, for each corruption and severity
    # Krizhevsky 2009; its test set is the split "val" here
    "cifar10": {"train": 50_000, "val": 10_000},
    "cifar10_c": {"val": 10_000},  # the test images again, for each corruption and severity
    "ade20k": {"train": 20_210, "val": 2_000},  # Zhou et al. 2017, the SceneParse150 benchmark
    "coco": {"train": 118_287, "val": 5_000},  # train2017 and val2017
}
ADE20K_FOLDER = "ADEChallengeData2016"
CIFAR10_FOLDER, CIFAR10_C_FOLDER = "cifar-10-batches-py", "CIFAR-10-C"
LAYOUTS: Mapping[str, str] = {
    "imagenet": "train/ and val/ with a folder for every WordNet id",
    "imagenet_c": "a folder for every corruption, or ImageNet-C/ with them,",
    "cifar10": "cifar-10-batches-py/",
    "cifar10_c": "CIFAR-10-C/ with labels.npy",
    "ade20k": "ADEChallengeData2016/ with images/ and annotations/",
}
"""Name of an official dataset -> the content of its folder."""
STORED = (*COMMON, "speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The corruptions of ImageNet-C and CIFAR-10-C: the 15 common and the 4 extra ones."""


def require_stored(corruption: str, severity: int) -> None:
    """Raise ``UserError`` for a corruption or severity that ImageNet-C and CIFAR-10-C lack."""
    if corruption not in STORED:
        raise unknown_name_error("stored corruption", corruption, STORED)
    if severity not in SEVERITIES:
        raise UserError(
            f"Expected a severity among 1, 2, 3, 4, 5, but got {severity!r}; give one of these"
        )


def require_layout(dataset: str, root: Path, split: str, existing: Sequence[str]) -> None:
    """Require that a folder has the layout of an official dataset and a split.

    Args:
        dataset: Name of the dataset.
        root: Its folder.
        split: Name of the split.
        existing: Names of the splits that were found.

    Raises:
        UserError: If nothing of the dataset, or not this split, was found.
    """
    if root.is_dir() and not existing:
        raise UserError(
            f"Expected {LAYOUTS[dataset]} in {root}, but there is none; check the path: "
            f"`stillrobust data check {dataset}:{root}` says how to get it"
        )
    require_split(dataset, root, split, existing)


def require_whole(dataset: str, split: str, root: Path, found: int, part: bool) -> None:
    """Require the published number of images.

    Args:
        dataset: Name of the dataset.
        split: Name of the split.
        root: Folder of the dataset.
        found: Number of images that were found.
        part: Accept any number.

    Raises:
        UserError: If the numbers differ and ``part`` is false.
    """
    expected = COUNTS[dataset][split]
    if found != expected and not part:
        raise UserError(
            f"Expected the {expected:,} images of {dataset}'s {split} split in {root}, but found"
            f" {found:,}: `stillrobust data check {dataset}:{root}` says what is missing;"
            f" {dataset}(part=True):{root} accepts the incomplete set"
        )
