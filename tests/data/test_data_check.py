"""`stillrobust data check`: what it says of whole sets and of every way a set can be half there."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.data import FORMATS, open_dataset
from stillrobust.data.check import check_dataset
from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.data.official.layout import COUNTS
from stillrobust.errors import UserError
from stillrobust.grid import COMMON
from tests import layouts
from tests.data import format_writers


def states(dataset, root, **options):
    return {part.name: part.state for part in check_dataset(f"{dataset}:{root}", **options).parts}


@pytest.fixture
def small(monkeypatch):
    """The counts of the small copies."""
    for dataset, splits in {
        "imagenet": {"train": 2, "val": 2},
        "imagenet_c": {"val": 2},
        "cifar10": {"train": 20, "val": 4},
        "cifar10_c": {"val": 4},
        "ade20k": {"train": 3, "val": 2},
        "coco": {"train": 3, "val": 2},
    }.items():
        monkeypatch.setitem(COUNTS, dataset, splits)
    monkeypatch.setattr("stillrobust.data.official.coco_2017.TRAINABLE_IMAGES", 2)


OWN = {
    "csv": format_writers.csv_list,
    "yolo": format_writers.ultralytics,
    "voc": format_writers.voc,
    "voc_maps": format_writers.voc_maps,
    "cityscapes": format_writers.cityscapes,
    "huggingface": format_writers.hugging_face_classes,
}


def write(dataset, root):
    if dataset in ("cifar10", "cifar10_c"):
        _, labels = layouts.write_cifar10(root)
        if dataset == "cifar10_c":
            layouts.write_cifar10_c(root, labels)
    elif dataset in ("imagenet", "imagenet_c"):
        layouts.write_imagenet(root, classes=wordnet_ids()[:2])
        layouts.write_imagenet(root, "train", classes=wordnet_ids()[:2])
        if dataset == "imagenet_c":
            layouts.write_imagenet_c(root, COMMON)
    elif dataset in ("ade20k", "coco"):
        layouts.write_ade20k(root) if dataset == "ade20k" else layouts.write_coco2017(root)
    elif dataset == "maps":
        home = layouts.write_ade20k(root)
        (home / "images").rename(root / "images")
        (home / "annotations").rename(root / "labels")
    elif dataset == "folders":
        layouts.write_imagenet(root, "train", classes=["cat", "dog"])
        layouts.write_imagenet(root, classes=["cat", "dog"])
    elif dataset in OWN:
        OWN[dataset](root)
    else:
        pytest.fail(f"write a small dataset of the format {dataset} here")
    return root


@pytest.mark.parametrize("dataset", sorted(FORMATS))
def test_whole_sets_are_whole(small, tmp_path, dataset):
    spec = f"{dataset}:{write(dataset, tmp_path)}"
    if dataset.startswith("imagenet"):
        spec = spec.replace(":", "(part=True):", 1)
    verdict = check_dataset(spec, full=True)
    assert verdict.whole, verdict.text()
    assert verdict.text().splitlines()[-2] == f"{dataset} in {tmp_path} is whole."
    task = open_dataset(verdict.spec, "val").info.task
    assert task == (FORMATS[dataset].task or "classification")


@pytest.mark.parametrize("dataset", ["ade20k", "cifar10", "imagenet"])
def test_splits_of_official_sets_by_option(small, tmp_path, dataset):
    root = write(dataset, tmp_path)
    names = [
        open_dataset(f"{dataset}(part=True{option}):{root}", split).info.name
        for option, split in ((", split='train'", "val"), ("", "train"), ("", "val"))
    ]
    assert names[0] == names[1] != names[2]


OFFICIAL = ("ade20k", "cifar10", "cifar10_c", "coco", "imagenet", "imagenet_c")


@pytest.mark.parametrize("dataset", OFFICIAL)
def test_small_copies_are_not_the_official_sets(tmp_path, dataset):
    verdict = check_dataset(f"{dataset}:{write(dataset, tmp_path)}")
    assert not verdict.whole
    assert f"{dataset} in {tmp_path} is not whole" in verdict.text()
    assert "data fetch" in verdict.text() or "account" in verdict.text()


def damage_first(root, pattern, content):
    path = sorted(root.rglob(pattern))[0]
    path.write_bytes(content(path.read_bytes()) if callable(content) else content)


def remove_first(root, pattern):
    path = sorted(root.rglob(pattern))[0]
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def dangle(root, pattern):
    """A link that leads nowhere in place of a file."""
    path = sorted(root.rglob(pattern))[0]
    path.unlink()
    path.symlink_to(root / "nowhere")


def cut(content):
    return content[: len(content) // 2]


def edit_coco(root, rows, **values):
    """Other values in the first row of a list of val's annotations."""
    path = root / "annotations" / "instances_val2017.json"
    document = json.loads(path.read_text())
    document[rows][0] |= values
    path.write_text(json.dumps(document))


RUNS = {"size": [40, 48], "counts": [5, 10]}
# data set, what happens to it, the part that says so, its state, a word of its line
DAMAGES = [
    (
        "coco",
        lambda root: remove_first(root, "train2017/*.jpg"),
        "train",
        "missing",
        "1 of 3 images are missing",
    ),
    ("coco", lambda root: remove_first(root, "val2017"), "val", "missing", "none exists"),
    (
        "coco",
        lambda root: damage_first(root, "instances_val*.json", cut),
        "val",
        "damaged",
        "valid JSON",
    ),
    (
        "coco",
        lambda root: damage_first(root, "val2017/*.jpg", b""),
        "val",
        "damaged",
        "1 of 2 files are empty",
    ),
    (
        "coco",
        lambda root: damage_first(root, "train2017/*.jpg", cut),
        "train",
        "damaged",
        "cut off",
    ),
    (
        "imagenet",
        lambda root: remove_first(root, "train/n*"),
        "train",
        "missing",
        "1 of 2 images, 999 of the 1,000 classes",
    ),
    ("imagenet", lambda root: remove_first(root, "val"), "val", "missing", "there is no folder"),
    ("imagenet", lambda root: damage_first(root, "val/*/*.JPEG", cut), "val", "damaged", "cut off"),
    (
        "imagenet",
        lambda root: damage_first(root, "val/*/*.JPEG", b""),
        "val",
        "damaged",
        "1 of 2 files are empty",
    ),
    ("imagenet", lambda root: dangle(root, "val/*/*.JPEG"), "val", "damaged", "empty or missing"),
    ("imagenet", lambda root: (root / "val" / "cats").mkdir(), "val", "damaged", "'cats'"),
    (
        "imagenet_c",
        lambda root: remove_first(root, "ImageNet-C/fog"),
        "fog",
        "missing",
        "there is no folder",
    ),
    (
        "imagenet_c",
        lambda root: remove_first(root, "ImageNet-C/fog/3/*/*.JPEG"),
        "fog",
        "missing",
        "3 has 1",
    ),
    (
        "imagenet_c",
        lambda root: damage_first(root, "ImageNet-C/snow/*/*/*.JPEG", b"x"),
        "snow",
        "damaged",
        "cannot be decoded",
    ),
    (
        "cifar10",
        lambda root: remove_first(root, "data_batch_4"),
        "data_batch_4",
        "missing",
        "there is no file",
    ),
    (
        "cifar10",
        lambda root: damage_first(root, "test_batch", cut),
        "test_batch",
        "damaged",
        "cut off",
    ),
    ("cifar10_c", lambda root: damage_first(root, "fog.npy", cut), "fog", "damaged", "cut off"),
    (
        "cifar10_c",
        lambda root: remove_first(root, "snow.npy"),
        "snow",
        "missing",
        "there is no file",
    ),
    (
        "cifar10_c",
        lambda root: remove_first(root, "cifar-10-batches-py"),
        "test_batch",
        "missing",
        "beside CIFAR-10-C",
    ),
    (
        "ade20k",
        lambda root: remove_first(root, "annotations/training/*.png"),
        "train",
        "missing",
        "1 of 3 images have no label",
    ),
    (
        "ade20k",
        lambda root: remove_first(root, "images/validation/*.jpg"),
        "val",
        "missing",
        "1 of 2 images",
    ),
    (
        "ade20k",
        lambda root: damage_first(root, "annotations/validation/*.png", cut),
        "val",
        "damaged",
        "cannot be decoded",
    ),
    (
        "ade20k",
        lambda root: remove_first(root, "images/training"),
        "train",
        "missing",
        "there is no folder",
    ),
    (
        "maps",
        lambda root: remove_first(root, "labels/training/*.png"),
        "training",
        "damaged",
        "Expected the label map",
    ),
    (
        "folders",
        lambda root: damage_first(root, "train/cat/*.JPEG", cut),
        "train",
        "damaged",
        "1 of the 2 files read are bad",
    ),
    (
        "coco",
        lambda root: edit_coco(root, "images", height=41),
        "val",
        "damaged",
        "1 of the 2 files read are bad: Expected",
    ),
    (
        "coco",
        lambda root: edit_coco(root, "annotations", segmentation=[[5, 5, 25, 25]]),
        "val",
        "damaged",
        "three x, y pairs",
    ),
    (
        "coco",
        lambda root: edit_coco(root, "annotations", segmentation=RUNS),
        "val",
        "damaged",
        "add up to 1920 pixels",
    ),
]


@pytest.mark.parametrize(("dataset", "happens", "part", "state", "word"), DAMAGES)
def test_every_damage_is_named(small, tmp_path, dataset, happens, part, state, word):
    happens(write(dataset, tmp_path))
    verdict = check_dataset(f"{dataset}:{tmp_path}", full=True)
    found = {line.name: line for line in verdict.parts}
    assert found.pop(part).state == state
    assert all(line.state == "whole" for line in found.values()), verdict.text()
    assert word in verdict.text()
    assert f"not whole ({part})" in verdict.text()


def test_archives_that_wait_or_are_cut_off(small, tmp_path):
    layouts.write_coco2017(tmp_path)
    shutil.rmtree(tmp_path / "val2017")
    (tmp_path / "val2017.zip").write_bytes(b"x")
    found = {part.name: part for part in check_dataset(f"coco:{tmp_path}").parts}
    assert found["val2017.zip"].state == "damaged"
    assert "1 of 815,585,330 bytes" in found["val2017.zip"].text
    (tmp_path / "val2017.zip").rename(tmp_path / ".val2017.zip.part")
    found = {part.name: part for part in check_dataset(f"coco:{tmp_path}").parts}
    assert (
        found["val2017.zip"].state,
        "its download is incomplete: 1 of" in found["val2017.zip"].text,
    ) == ("missing", True)


def test_class_names_of_ade20k(small, tmp_path):
    home = write("ade20k", tmp_path) / "ADEChallengeData2016"
    from stillrobust.data.official.ade20k import CLASSES

    rows = [f"{n} \t0.1\t10\t1\tanother word, {name} " for n, name in enumerate(CLASSES, 1)]
    (home / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    assert states("ade20k", tmp_path)["objectInfo150.txt"] == "whole"
    (home / "objectInfo150.txt").write_text(
        "\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows[1:], rows[0]])
    )
    assert states("ade20k", tmp_path)["objectInfo150.txt"] == "damaged"


def test_a_sample_is_read_or_all(small, tmp_path, monkeypatch):
    """The second of four images is bad: found when all are read, not in a sample of two, the first
    and the third.
    """
    monkeypatch.setattr("stillrobust.data.formats.checks.SAMPLE", 2)
    monkeypatch.setitem(COUNTS, "ade20k", {"train": 4, "val": 2})
    layouts.write_ade20k(tmp_path, train=4)
    damage_first(tmp_path, "images/training/*2.jpg", cut)
    assert states("ade20k", tmp_path)["train"] == "whole"
    assert states("ade20k", tmp_path, full=True)["train"] == "damaged"


def test_coco_says_what_can_be_learned_from(small, tmp_path, monkeypatch):
    text = check_dataset(f"coco:{layouts.write_coco2017(tmp_path)}").text()
    assert "train: 3 images, 3 of them decoded, 2 with something to learn" in text
    with monkeypatch.context() as other:
        other.setattr("stillrobust.data.official.coco_2017.TRAINABLE_IMAGES", 117_266)
        found = {part.name: part for part in check_dataset(f"coco:{tmp_path}").parts}
    assert found["train"].state == "damaged"
    assert "not 117,266: the annotations are others" in found["train"].text
    document = json.loads((tmp_path / "annotations" / "instances_val2017.json").read_text())
    (tmp_path / "annotations" / "instances_mine.json").write_text(json.dumps(document))
    (tmp_path / "val2017").rename(tmp_path / "mine")
    (tmp_path / "annotations" / "instances_val2017.json").unlink()
    assert states("coco", tmp_path) == {"train": "whole", "val": "missing", "mine": "whole"}


@pytest.mark.parametrize(
    ("annotations", "images"), [("val", "images/val"), ("instances_val", "val"), ("val", "images")]
)
def test_a_coco_set_of_one_s_own(small, tmp_path, annotations, images):
    """Its layouts are those that open, and nobody is told to fetch COCO 2017 into it."""
    made = layouts.write_coco2017(tmp_path / "made")
    root = tmp_path / "own"
    (root / "annotations").mkdir(parents=True)
    shutil.copy(
        made / "annotations" / "instances_val2017.json",
        root / "annotations" / f"{annotations}.json",
    )
    shutil.copytree(made / "val2017", root / images)
    verdict = check_dataset(f"coco:{root}")
    assert [(part.name, part.state) for part in verdict.parts] == [("val", "whole")], verdict.text()
    damage_first(root, "*.jpg", cut)
    text = check_dataset(f"coco:{root}").text()
    assert ("Correct or complete" in text, "fetch" in text) == (True, False)
    shutil.rmtree(root / "annotations")
    text = check_dataset(f"coco:{root}").text()
    assert ("Expected COCO annotations in" in text, "fetch" in text) == (True, False)


def test_an_empty_folder_is_for_coco_2017(tmp_path):
    verdict = check_dataset(f"coco:{tmp_path}")
    assert [(part.name, part.state) for part in verdict.parts] == [
        ("train", "missing"),
        ("val", "missing"),
    ]
    assert f"`stillrobust data fetch coco {tmp_path}`" in verdict.text()


def test_classes_without_images_and_files_that_are_not_read_are_said(tmp_path):
    layouts.write_imagenet(tmp_path, "train", classes=["cat", "dog"])
    layouts.write_imagenet(tmp_path, "val", classes=["cat"])
    (tmp_path / "val" / "cat" / "a.heic").write_bytes(b"a phone's picture")
    (tmp_path / "val" / "lost.png").write_bytes(b"in no class")
    text = check_dataset(f"folders:{tmp_path}").text()
    assert "whole    train: 2 images, 2 of them decoded\n" in text
    assert "decoded, 2 other files are not read: a.heic, lost.png\n" in text
    remove_first(tmp_path, "train/dog/*.JPEG")  # a folder with nothing in it
    found = {part.name: part for part in check_dataset(f"folders:{tmp_path}").parts}
    assert (found["train"].state, found["train"].notes) == (
        "whole",
        ("1 of the 2 classes are without images",),
    )
    (tmp_path / "train" / "dog" / "a.heic").write_bytes(b"a phone's picture")
    found = {part.name: part for part in check_dataset(f"folders:{tmp_path}").parts}
    assert found["train"].state == "damaged"
    assert "what 1 of 2 hold is none, the first 'dog'" in found["train"].text


def test_the_command(small, tmp_path):
    """Status 0 for a whole set, 3 for one that is not; a mistake is one sentence."""
    write("ade20k", tmp_path)
    result = CliRunner().invoke(app, ["data", "check", f"ade20k:{tmp_path}"])
    assert (result.exit_code, "is whole" in result.output) == (0, True)
    remove_first(tmp_path, "images/training/*.jpg")
    result = CliRunner().invoke(app, ["data", "check", f"ade20k:{tmp_path}"])
    assert (result.exit_code, "2 of 3 images" in result.output) == (3, True)
    assert "data fetch ade20k" in result.output
    with pytest.raises(UserError, match="Did you mean: ade20k"):
        check_dataset(f"ade:{tmp_path}")
    with pytest.raises(
        UserError,
        match=(
            r"at .*nowhere, but there is none; check the path, or get the published set:"
            r" `stillrobust data fetch"
        ),
    ):
        check_dataset(f"ade20k:{tmp_path / 'nowhere'}")


def test_labels_of_cifar10_c(small, tmp_path):
    folder = write("cifar10_c", tmp_path) / "CIFAR-10-C"
    np.save(folder / "labels.npy", np.full(20, 11, np.uint8))
    np.save(folder / "fog.npy", np.zeros((20, 32, 32, 3), np.uint8))
    found = states("cifar10_c", tmp_path)
    assert (found["labels"], found["fog"], found["snow"]) == ("damaged", "damaged", "whole")
