"""Small copies of the official datasets, in the files and folders of their archives."""

import json
import struct

import numpy as np
from PIL import Image as Pillow

from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.data.official.layout import STORED


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_jpeg(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(image).save(path, format="JPEG", **options)
    return path


def python2_pickle(value):
    """The bytes that Python 2's cPickle writes with protocol 2, as in CIFAR-10's batches."""
    return b"\x80\x02" + _encoded(value) + b"."


def _encoded(value):
    if isinstance(value, np.ndarray):
        shape = b"(" + b"".join(map(_encoded, value.shape)) + b"t"
        head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        dtype = (
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|"
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        return (
            head
            + shape
            + dtype
            + b"\x89T"
            + struct.pack("<i", value.nbytes)
            + value.tobytes()
            + b"tb"
        )
    if isinstance(value, dict):
        return (
            b"}(" + b"".join(_encoded(key) + _encoded(item) for key, item in value.items()) + b"u"
        )
    if isinstance(value, list):
        return b"](" + b"".join(map(_encoded, value)) + b"e"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    return b"J" + struct.pack("<i", value)


def write_cifar10(root, images=4, seed=0):
    """Five training batches and a test batch of ``images`` each. Returns (images (N, 32, 32, 3),
    labels) of the test batch.
    """
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = pixels([seed, number], images, 3072)
        labels = [(number + place) % 10 for place in range(images)]
        batch = {
            "batch_label": name,
            "labels": labels,
            "data": rows,
            "filenames": [f"{place}.png" for place in range(images)],
        }
        (folder / name).write_bytes(python2_pickle(batch))
    names = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": names, "num_vis": 3072}))
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def write_cifar10_c(root, labels, corruptions=STORED):
    """``CIFAR-10-C/<corruption>.npy`` for the given test labels."""
    folder = root / "CIFAR-10-C"
    folder.mkdir(parents=True)
    np.save(folder / "labels.npy", np.tile(np.array(labels, np.uint8), 5))
    for number, name in enumerate(corruptions):
        np.save(folder / f"{name}.npy", pixels(number, 5 * len(labels), 32, 32, 3))
    return folder


def write_imagenet(root, split="val", classes=None, images=1, size=(40, 30)):
    """``<split>/<wnid>/*.JPEG`` with ``images`` a class."""
    for number, wnid in enumerate(wordnet_ids() if classes is None else classes):
        for place in range(images):
            name = (
                f"ILSVRC2012_val_{number * images + place + 1:08d}"
                if split == "val"
                else f"{wnid}_{place}"
            )
            save_jpeg(root / split / wnid / f"{name}.JPEG", pixels([number, place], *size, 3))
    return root


def write_imagenet_c(root, corruptions=("fog",), severities=(1, 2, 3, 4, 5), folder="ImageNet-C"):
    """``<corruption>/<severity>/<wnid>/*.JPEG`` for every image of ``root/val``."""
    for corruption in corruptions:
        for severity in severities:
            for path in sorted((root / "val").rglob("*.JPEG")):
                target = root / folder / corruption / str(severity) / path.relative_to(root / "val")
                save_jpeg(target, np.full((224, 224, 3), 40 * severity, np.uint8), quality=85)
    return root


def write_ade20k(root, train=3, val=2, size=(20, 30)):
    """``ADEChallengeData2016`` with label values 0 (nothing) to 150."""
    home = root / "ADEChallengeData2016"
    for folder, count in (("training", train), ("validation", val)):
        for number in range(count):
            stem = f"ADE_{'train' if folder == 'training' else 'val'}_{number + 1:08d}"
            save_jpeg(home / "images" / folder / f"{stem}.jpg", pixels(number, *size, 3))
            labels = home / "annotations" / folder / f"{stem}.png"
            labels.parent.mkdir(parents=True, exist_ok=True)
            values = (np.arange(size[0] * size[1]) % 151).astype(np.uint8).reshape(size)
            Pillow.fromarray(values).save(labels)
    return home


def write_coco2017(root, train=3, val=2, size=(40, 48)):
    """``train2017/``, ``val2017/`` and ``annotations/``; the last training image has no object."""
    height, width = size
    for split, count in (("train2017", train), ("val2017", val)):
        images = [
            {"id": n, "file_name": f"{n:012d}.jpg", "height": height, "width": width}
            for n in range(1, count + 1)
        ]
        box = {
            "category_id": 18,
            "bbox": [2, 3, 10, 12],
            "area": 120,
            "iscrowd": 0,
            "segmentation": [[2, 3, 12, 3, 12, 15, 2, 15]],
        }
        boxes = [{"id": n, "image_id": n, **box} for n in range(1, count + (split != "train2017"))]
        for row in images:
            save_jpeg(root / split / row["file_name"], pixels(row["id"], height, width, 3))
        categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
        document = {"images": images, "annotations": boxes, "categories": categories}
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
        (path.parent / f"captions_{split}.json").write_text("{}")
    return root
