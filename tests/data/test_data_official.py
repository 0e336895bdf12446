"""The official layouts, read back: ids, labels, counts, pixels; and sets that are half there,
refused in one sentence.
"""

import json
import pickle
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust.data import open_dataset
from stillrobust.data.official.imagenet import resize_and_crop, wordnet_ids
from stillrobust.data.official.layout import COUNTS
from stillrobust.data.official.pickles import read_pickle
from stillrobust.data.views import StoredCorruptions, Subset, corrupted_view, has_stored_corruptions
from stillrobust.errors import UserError
from tests import layouts


@pytest.fixture
def counts(monkeypatch):
    """Sets the official number of images of a set for a small copy."""
    return lambda dataset, **splits: monkeypatch.setitem(COUNTS, dataset, splits)


def refuses(spec, split, pattern):
    with pytest.raises(UserError, match=pattern) as caught:
        open_dataset(spec, split)
    assert "\n" not in str(caught.value)


def test_official_counts_and_classes():
    """The published sizes of ILSVRC 2012, CIFAR-10, SceneParse150 and COCO 2017."""
    assert COUNTS["imagenet"] == {"train": 1_281_167, "val": 50_000}
    assert COUNTS["cifar10"] == {"train": 50_000, "val": 10_000}
    assert COUNTS["ade20k"] == {"train": 20_210, "val": 2_000}
    assert (len(wordnet_ids()), wordnet_ids()[0], wordnet_ids()[-1]) == (
        1000,
        "n01440764",
        "n15075141",
    )
    assert list(wordnet_ids()) == sorted(set(wordnet_ids()))


@pytest.mark.parametrize("dataset", ["imagenet", "imagenet_c", "cifar10", "cifar10_c", "ade20k"])
def test_a_wrong_root_says_what_should_be_there(tmp_path, dataset):
    (tmp_path / "photos").mkdir()
    refuses(
        f"{dataset}:{tmp_path}",
        "val",
        f"Expected .* in {tmp_path}, but there is none; .*data check {dataset}:{tmp_path}",
    )
    refuses(f"{dataset}:{tmp_path / 'nowhere'}", "val", "no such folder; check the path")


# ---- CIFAR-10 and CIFAR-10-C


def test_cifar10(tmp_path, counts):
    images, labels = layouts.write_cifar10(tmp_path)
    counts("cifar10", train=20, val=4)
    data = open_dataset(f"cifar10:{tmp_path}", "val")
    assert [data[index].target.label for index in range(4)] == labels
    assert all(np.array_equal(data[index].image, images[index]) for index in range(4))
    assert [data[index].target.image_id for index in (0, 3)] == ["00000", "00003"]
    assert data.info.classes[3] == "cat"
    assert (data.info.regime, data.info.stage) == ("cifar", "before resize")
    train = open_dataset(f"cifar10:{tmp_path / 'cifar-10-batches-py'}", "train", training=True)
    assert len(train) == 20
    assert train[7].target.label == (1 + 3) % 10  # image 3 of the second batch


def test_cifar10_half_there(tmp_path, counts):
    layouts.write_cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    refuses(
        f"cifar10:{tmp_path}",
        "train",
        "Expected the 50,000 images .* but found 20: .*data check cifar10",
    )
    assert len(open_dataset(f"cifar10(part=True):{tmp_path}", "train")) == 20
    content = (folder / "data_batch_3").read_bytes()
    (folder / "data_batch_3").write_bytes(content[:-100])
    refuses(f"cifar10:{tmp_path}", "train", "data_batch_3, but it is cut off or damaged")
    (folder / "data_batch_3").unlink()
    refuses(f"cifar10:{tmp_path}", "train", "data_batch_3, but got: No such file")
    refuses(f"cifar10:{tmp_path / 'nowhere'}", "val", "no such folder")
    refuses(f"cifar10:{folder / 'none'}", "val", "no such folder")
    refuses(f"cifar10:{tmp_path}", "test", "splits found: train, val")
    refuses(f"cifar10(part=1):{tmp_path}", "val", "Expected True or False for part")
    refuses(f"coco(part=True):{tmp_path}", "val", "the format coco has no .part.")
    wide = {"data": layouts.pixels(0, 2, 3072), "labels": [0, 99]}
    (folder / "test_batch").write_bytes(layouts.python2_pickle(wide))
    refuses(f"cifar10:{tmp_path}", "val", "labels 0..9 .* CIFAR-100 is another set")


def test_pickles_as_python_writes_them(tmp_path):
    """Every protocol that writes plain values alone is read; the arrays of ours are Python 2's,
    held against pickle itself.
    """
    layouts.write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    expected = pickle.loads(path.read_bytes(), encoding="latin-1")
    found = read_pickle(path)
    assert found.keys() == expected.keys()
    assert found["labels"] == expected["labels"]
    np.testing.assert_array_equal(found["data"], expected["data"])
    for protocol in range(3):
        path.write_bytes(
            pickle.dumps({"a": [1, 2.5 > 2, None, ("x", "y", 3, 4), {5: "z"}], "b": "é"}, protocol)
        )
        assert read_pickle(path) == {"a": [1, True, None, ("x", "y", 3, 4), {5: "z"}], "b": "é"}
    # a place in the memo for which pickle would allocate 32 GB
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    assert read_pickle(path) == {}


class Runs:
    def __reduce__(self):
        return sys.modules["os"].system, ("touch executed",)


HOSTILE = {
    "code": pickle.dumps({"data": Runs()}, 2),
    "code, protocol 4": pickle.dumps({"data": Runs()}, 4),
    "a name": b"\x80\x02}(U\x01acos\nsystem\nu.",
    "numpy's loader": b"\x80\x02}(U\x01acnumpy\nload\nu.",
    "an instance": b"\x80\x02}(U\x01a(ios\nsystem\nu.",
    "an object's state": b"\x80\x02}(U\x01acnumpy\nndarray\n}bu.",
    "an array of objects": (
        b"\x80\x02}(U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01\x85cnumpy\ndtype\nU\x01OK\x00K\x01\x87R\x89](K\x01etbu."
    ),
    "a wrong size": (
        b"\x80\x02}(U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89U\x01xtbu."
    ),
    "a key whose hash takes years": (
        b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"}(h\x00K\x01u."
    ),
    "an empty stack": b"\x80\x02b.",
    "no dict": b"\x80\x02](K\x01e.",
    "nothing": b"",
    "text": b"hello",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02U\x01aQ.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_run_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "test_batch"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match="Expected") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["test_batch"]


def test_cifar10_c(tmp_path, counts):
    clean, labels = layouts.write_cifar10(tmp_path)
    folder = layouts.write_cifar10_c(tmp_path, labels)
    counts("cifar10", train=20, val=4)
    data = open_dataset(f"cifar10_c:{tmp_path}", "val")
    assert isinstance(data, StoredCorruptions)
    assert data.info.stage == "stored"
    assert np.array_equal(data[2].image, clean[2])
    stack = np.load(folder / "snow.npy")
    for severity in (1, 5):
        stored = data.corrupted("snow", severity)
        assert [stored[index].target.label for index in range(4)] == labels
        assert [stored[index].target.image_id for index in range(4)] == [
            data[index].target.image_id for index in range(4)
        ]
        assert all(
            np.array_equal(stored[index].image, stack[4 * (severity - 1) + index])
            for index in range(4)
        )
    assert (
        len(
            {
                data.corrupted(name, level).info.fingerprint
                for name in ("snow", "fog")
                for level in (1, 2)
            }
        )
        == 4
    )
    part = Subset(data, [1, 3])
    assert has_stored_corruptions(part)
    assert np.array_equal(corrupted_view(part, "snow", 2)[1].image, stack[4 + 3])
    assert open_dataset(f"cifar10_c:{folder}", "val").info == data.info  # CIFAR-10 lies beside it


def test_cifar10_c_half_there(tmp_path, counts):
    _, labels = layouts.write_cifar10(tmp_path)
    folder = layouts.write_cifar10_c(tmp_path, labels, ["snow", "fog", "frost"])
    counts("cifar10", train=20, val=4)
    data = open_dataset(f"cifar10_c:{tmp_path}", "val")
    whole = (folder / "fog.npy").read_bytes()
    (folder / "fog.npy").write_bytes(whole[:-1000])
    np.save(folder / "frost.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / "snow.npy", layouts.pixels(0, 19, 32, 32, 3))
    for corruption, sentence in {
        "fog": "fog.npy, but it is cut off",
        "frost": "frost.npy, but it is cut off or no .npy file of plain",
        "snow": r"\(20, 32, 32, 3\) in .*snow.npy, but got uint8 of \(19",
        "contrast": "contrast.npy, but No such file",
        "fogg": "Did you mean: fog",
    }.items():
        with pytest.raises(UserError, match=sentence):
            data.corrupted(corruption, 1)
    with pytest.raises(UserError, match="severity among"):
        data.corrupted("fog", 6)
    np.save(folder / "labels.npy", np.zeros(20, np.uint8))
    refuses(f"cifar10_c:{tmp_path}", "val", "labels five times .* but they differ")
    shutil.rmtree(tmp_path / "cifar-10-batches-py")
    refuses(f"cifar10_c:{tmp_path}", "val", "beside CIFAR-10-C .*data fetch cifar10")


# ---- ImageNet and ImageNet-C


@pytest.mark.parametrize(
    "size",
    [(300, 400), (400, 300), (257, 391), (500, 256), (100, 90), (256, 256), (375, 500), (256, 259)],
)
def test_the_test_view_is_torchvisions(size):
    transforms = pytest.importorskip("torchvision.transforms")
    image = Pillow.fromarray(layouts.pixels(size, *size, 3))
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(image)
    np.testing.assert_array_equal(resize_and_crop(image), np.asarray(expected))


def test_imagenet(tmp_path, counts):
    layouts.write_imagenet(tmp_path)
    layouts.write_imagenet(tmp_path, "train")
    counts("imagenet", train=1000, val=1000)
    data = open_dataset(f"imagenet:{tmp_path}", "val")
    assert (len(data), data.info.classes) == (1000, wordnet_ids())
    assert data[993].target.label == 993
    assert data[993].target.image_id == f"{wordnet_ids()[993]}/ILSVRC2012_val_00000994.JPEG"
    assert data[993].image.shape == (224, 224, 3)
    assert data.info.stage == "after resize to 256 and centre crop to 224"
    train = open_dataset(f"imagenet:{tmp_path}", "train", training=True)
    assert train[5].image.shape == (40, 30, 3)
    assert train[5].target.image_id == f"{wordnet_ids()[5]}/{wordnet_ids()[5]}_0.JPEG"


def test_imagenet_as_kaggle_has_it(tmp_path, counts):
    """Flat val images with a table of classes have the ids and labels of class folders."""
    layouts.write_imagenet(tmp_path / "sorted", classes=wordnet_ids()[3:6], images=2)
    home = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    (home / "val").mkdir(parents=True)
    rows = ["ImageId,PredictionString"]
    for path in sorted((tmp_path / "sorted").rglob("*.JPEG")):
        shutil.copy(path, home / "val")
        rows.append(f"{path.stem},{path.parent.name} 1 2 3 4 {path.parent.name} 5 6 7 8 ")
    refuses(
        f"imagenet:{tmp_path / 'kaggle'}",
        "val",
        "LOC_val_solution.csv .* found neither; sort the images",
    )
    (tmp_path / "kaggle" / "LOC_val_solution.csv").write_text("\n".join(rows))
    counts("imagenet", train=6, val=6)
    flat = open_dataset(f"imagenet:{tmp_path / 'kaggle'}", "val")
    ordered = open_dataset(f"imagenet(part=True):{tmp_path / 'sorted'}", "val")
    assert flat.info == ordered.info
    assert [flat[n].target for n in range(6)] == [ordered[n].target for n in range(6)]
    assert np.array_equal(flat[4].image, ordered[4].image)
    (tmp_path / "kaggle" / "LOC_val_solution.csv").write_text("\n".join(rows[:-1]))
    refuses(
        f"imagenet:{tmp_path / 'kaggle'}",
        "val",
        "class of ILSVRC2012_val_00000006.JPEG .* but got ''",
    )


def test_imagenet_half_there(tmp_path):
    refuses(
        f"imagenet:{tmp_path}",
        "val",
        "Expected train/ and val/ .* there is none; check the path: `stillrobust data check",
    )
    (tmp_path / "train").mkdir()
    refuses(f"imagenet:{tmp_path}", "val", "splits found: train")
    layouts.write_imagenet(tmp_path, classes=wordnet_ids()[:3])
    refuses(
        f"imagenet:{tmp_path}", "val", "997 are missing, the first n01491361: .*data check imagenet"
    )
    assert len(open_dataset(f"imagenet(part=True):{tmp_path}", "val")) == 3
    (tmp_path / "val" / "cats").mkdir()
    refuses(
        f"imagenet:{tmp_path}",
        "val",
        "such as n01440764, .* but got 'cats'; check the path, or use folders:",
    )


def test_imagenet_c(tmp_path, counts):
    classes = wordnet_ids()[:2]
    layouts.write_imagenet_c(layouts.write_imagenet(tmp_path, classes=classes, images=2), ["fog"])
    # unpacked in folders of the archives
    layouts.write_imagenet_c(tmp_path, ["shot_noise"], folder="ImageNet-C/noise")
    layouts.write_imagenet_c(tmp_path, ["snow"], folder="")
    data = open_dataset(f"imagenet_c(part=True):{tmp_path}", "val")
    for name in ("fog", "shot_noise", "snow"):
        stored = data.corrupted(name, 3)
        assert [stored[n].target for n in range(4)] == [data[n].target for n in range(4)]
        assert abs(int(stored[0].image.mean()) - 120) <= 1  # the file of severity 3
    assert (data.info.stage, data[0].image.shape) == ("stored", (224, 224, 3))
    assert data.corrupted("fog", 1).info.fingerprint != data.corrupted("fog", 2).info.fingerprint
    with pytest.raises(
        UserError,
        match=r"4 images of the clean set in .*contrast.2, but 4 are missing and 0 are others",
    ):
        data.corrupted("contrast", 2)
    next((tmp_path / "ImageNet-C" / "fog" / "1").rglob("*.JPEG")).unlink()
    with pytest.raises(UserError, match=r"fog.1, but 1 are missing .*data check imagenet_c"):
        data.corrupted("fog", 1)
    other = next((tmp_path / "ImageNet-C" / "fog" / "3").rglob("*.JPEG"))
    other.rename(other.with_name("another.JPEG"))
    with pytest.raises(UserError, match=r"fog.3, but 1 are missing and 1 are others"):
        data.corrupted("fog", 3)
    layouts.save_jpeg(
        tmp_path / "ImageNet-C" / "fog" / "2" / data[0].target.image_id,
        layouts.pixels(0, 64, 64, 3),
    )
    with pytest.raises(UserError, match="224x224, as ImageNet-C is, but it is 64x64"):
        data.corrupted("fog", 2)[0]
    shutil.rmtree(tmp_path / "val")
    refuses(f"imagenet_c:{tmp_path}", "val", "val folder in .* a link to it will do")


# ---- ADE20K and COCO


def test_ade20k(tmp_path, counts):
    home = layouts.write_ade20k(tmp_path)
    counts("ade20k", train=3, val=2)
    data = open_dataset(f"ade20k:{tmp_path}", "val")
    assert open_dataset(f"ade20k:{home}", "val").info == data.info
    assert (len(data), len(data.info.classes), len(set(data.info.classes))) == (2, 150, 150)
    assert [data.info.classes[n] for n in (0, 7, 12, 149)] == ["wall", "bed", "person", "flag"]
    label_map = data[1].target.label_map
    assert data[1].target.image_id == "ADE_val_00000002.jpg"
    assert label_map.ravel()[:152].tolist() == [255, *range(150), 255]  # stored: 0, 1, ..., 150, 0
    stored = np.asarray(Pillow.open(home / "annotations" / "validation" / "ADE_val_00000002.png"))
    assert np.array_equal(label_map, np.where(stored == 0, 255, stored - 1))
    assert len(open_dataset(f"ade20k:{tmp_path}", "train")) == 3


def test_ade20k_half_there(tmp_path):
    home = layouts.write_ade20k(tmp_path)
    refuses(
        f"ade20k:{tmp_path}",
        "train",
        "Expected the 20,210 images of ade20k's train split in .*, but found 3",
    )
    Pillow.fromarray(np.full((20, 30), 151, np.uint8)).save(
        home / "annotations" / "validation" / "ADE_val_00000001.png"
    )
    with pytest.raises(UserError, match=r"labels 0..150 or 255 in .*, but got 151"):
        open_dataset(f"ade20k(part=True):{tmp_path}", "val")[0]
    (home / "annotations" / "validation" / "ADE_val_00000001.png").unlink()
    refuses(f"ade20k(part=True):{tmp_path}", "val", "Expected the label map .*ADE_val_00000001.png")
    refuses(f"ade20k:{tmp_path / 'none'}", "val", "no such folder")


def test_coco_2017(tmp_path):
    layouts.write_coco2017(tmp_path)
    train = open_dataset(f"coco:{tmp_path}", "train", training=True)
    assert (len(train), train.info.classes) == (2, ("person", "dog"))
    assert len(open_dataset(f"coco:{tmp_path}", "train")) == 3
    assert open_dataset(f"coco:{tmp_path}", "val")[0].target.boxes.tolist() == [[2, 3, 12, 15]]
    text = (tmp_path / "annotations" / "instances_val2017.json").read_text()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(text[:-40])
    refuses(f"coco:{tmp_path}", "val", "Expected valid JSON")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"area": 0}, False),
        ({"bbox": [2, 3, 0.9, 12]}, False),
        ({"iscrowd": 1}, False),
        ({"height": 31}, False),
        ({"height": 32}, True),
    ],
)
def test_what_training_leaves_out(tmp_path, change, kept):
    """mmdetection's rule, object by object: area 0, under a pixel wide, crowds alone; images under
    32 pixels.
    """
    size = (change.get("height", 40), 48)
    layouts.write_coco2017(tmp_path, train=3, size=size)
    path = tmp_path / "annotations" / "instances_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][0].update(
        {key: value for key, value in change.items() if key != "height"}
    )
    path.write_text(json.dumps(document))
    if size[0] < 32:
        with pytest.raises(UserError, match=re.escape("at least one image of 32 pixels or more")):
            open_dataset(f"coco:{tmp_path}", "train", training=True)
        return
    assert len(open_dataset(f"coco:{tmp_path}", "train", training=True)) == (2 if kept else 1)


# ---- options of the official sets


@pytest.mark.parametrize("name", ["cifar10", "cifar10_c"])
def test_some_classes_of_cifar(name, tmp_path, counts):
    images, labels = layouts.write_cifar10(tmp_path)
    layouts.write_cifar10_c(tmp_path, labels)
    counts("cifar10", train=20, val=4)
    whole = open_dataset(f"{name}:{tmp_path}", "val")
    names = [whole.info.classes[labels[place]] for place in (2, 0)]
    data = open_dataset(f"{name}(classes={names}, split='test'):{tmp_path}", "val")
    assert data.info.classes == tuple(names)
    assert [data[n].target.label for n in range(2)] == [1, 0]  # in the order of the option
    assert [data.image_id(n) for n in range(2)] == ["00000", "00002"]
    assert np.array_equal(data[1].image, images[2])
    assert data.info.notes == ("2 of 10 classes are used; images of the others are left out",)
    assert data.info.fingerprint != whole.info.fingerprint
    assert isinstance(data, StoredCorruptions) == (name == "cifar10_c")
    if name == "cifar10_c":
        stored, all_stored = data.corrupted("fog", 3), whole.corrupted("fog", 3)
        assert np.array_equal(stored[1].image, all_stored[2].image)
        assert stored[1].target == data[1].target
        assert stored.info.stage == "stored"


def test_some_classes_of_imagenet(tmp_path):
    classes = wordnet_ids()[:3]
    layouts.write_imagenet_c(layouts.write_imagenet(tmp_path, classes=classes, images=2), ["fog"])
    chosen = f"(part=True, classes=['{classes[2]}', '{classes[0]}']):{tmp_path}"
    for name in ("imagenet", "imagenet_c"):
        data = open_dataset(name + chosen, "val")
        assert data.info.classes == (classes[2], classes[0])
        assert [data[n].target.label for n in range(4)] == [1, 1, 0, 0]
    stored = data.corrupted("fog", 2)
    assert [stored[n].target for n in range(4)] == [data[n].target for n in range(4)]
    with pytest.raises(UserError, match=r"Unknown class .n01440765.*n01440764"):
        open_dataset(f"imagenet(part=True, classes=['n01440765']):{tmp_path}", "val")
    missing = wordnet_ids()[7]
    with pytest.raises(UserError, match="Expected images of the chosen classes"):
        open_dataset(f"imagenet(part=True, classes=['{missing}']):{tmp_path}", "val")


@pytest.mark.parametrize("name", ["cifar10_c", "imagenet_c"])
def test_stored_corruptions_have_one_split(name, tmp_path):
    with pytest.raises(UserError, match=f"Expected split='val' for {name}, .*train on {name[:-2]}"):
        open_dataset(f"{name}(split='train'):{tmp_path}", "val")
