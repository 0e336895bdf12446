"""COCO 2017: how many images it has, and how to recognise its folder. It is read as ``coco``."""

from pathlib import Path

from stillrobust.data.official.sources import ARCHIVES, fetch_advice

# Images of train2017 with objects to learn from: mmdetection's filter and detectron2's log agree.
TRAINABLE_IMAGES = 117_266


def is_coco_2017(root: Path) -> bool:
    """Whether a folder is COCO 2017, complete or not.

    Args:
        root: Folder of the dataset.

    Returns:
        True for an empty folder and for one with an archive, folder or file of COCO 2017.
    """
    archives = [
        name for archive in ARCHIVES["coco"] for name in (archive.name, f".{archive.name}.part")
    ]
    places = [
        place
        for name in ("train2017", "val2017")
        for place in (name, f"images/{name}", f"annotations/instances_{name}.json")
    ]
    return root.is_dir() and (
        not any(root.iterdir()) or any((root / name).exists() for name in (*archives, *places))
    )


def coco_advice(root: Path) -> str:
    """How to get COCO 2017. Users' own data in its format need no download of 20 GB."""
    if not root.exists():
        return (
            f"`stillrobust data fetch coco {root}` gets COCO 2017; for a set of your own, correct"
            " the path."
        )
    if is_coco_2017(root):
        return fetch_advice("coco")(root)
    return "Correct or complete the parts that are named."
