"""One small set for each task, written in every format that can hold it."""

import csv
import io
import json

import datasets
import numpy as np
from PIL import Image as Pillow

from stillrobust.data import open_dataset

SIZE = 40, 60  # H, W
CLASSES = ("bus", "car")
NAMES = ("a.png", "b.png", "sub/c.png")
# image -> (label, x, y, w, h); one image is background
OBJECTS = {
    "a.png": [(1, 5, 6, 20, 10), (0, 30, 8, 25, 30)],
    "b.png": [(1, 0, 0, 60, 40)],
    "sub/c.png": [],
}


def photo(name):
    seed = sum(name.encode())
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels).save(path)


def save_photos(folder):
    for name in NAMES:
        save(folder / name, photo(name))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def corners(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h, x, y + h / 2]


def coco(prefix="", outlines=False, first=1, root=None):
    """A COCO document. ``root`` adds a category 0 without annotations."""
    images = [
        {"id": 10 + n, "file_name": prefix + name, "height": SIZE[0], "width": SIZE[1]}
        for n, name in enumerate(NAMES)
    ]
    annotations = [
        {
            "id": len(OBJECTS[name]) * 100 + place + 10 * n,
            "image_id": 10 + n,
            "category_id": label + first,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": 0,
            **({"segmentation": [corners(x, y, w, h)]} if outlines else {}),
        }
        for n, name in enumerate(NAMES)
        for place, (label, x, y, w, h) in enumerate(OBJECTS[name])
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, first)]
    if root:
        for category in categories:
            category["supercategory"] = root
        categories.insert(0, {"id": 0, "name": root, "supercategory": "none"})
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def coco_folders(root, **how):
    save_photos(root / "val")
    write_text(root / "annotations/instances_val.json", coco(**how))
    return f"coco:{root}"


def roboflow(root, **how):
    save_photos(root / "valid")
    write_text(root / "valid/_annotations.coco.json", coco(root="vehicles", **how))
    return f"coco:{root}"


def cvat(root, **how):
    save_photos(root / "images/default")
    write_text(root / "annotations/instances_default.json", coco(**how))
    return f"coco:{root}"


def label_studio(root, **how):
    save_photos(root / "images")
    text = coco(prefix="images/", first=0, **how).replace("images/sub/c", "images\\\\sub\\\\c")
    write_text(root / "result.json", text)
    return f"coco:{root}"


def fiftyone(root, **how):
    save_photos(root / "data")
    write_text(root / "labels.json", coco(first=0, **how))
    return f"coco:{root}"


def labelme(root, **how):
    save_photos(root / "JPEGImages")
    write_text(root / "annotations.json", coco("JPEGImages/", root="_background_", **how))
    return f"coco:{root}"


def any_coco(root, **how):
    save_photos(root / "pictures")
    write_text(root / "lists/mine.json", coco(**how))
    return f"coco(annotations='lists/mine.json', images='pictures'):{root}"


def yolo(root, outlines=False, layout="images/val"):
    save_photos(root / layout)
    height, width = SIZE
    for name in NAMES:
        lines = []
        for label, x, y, w, h in OBJECTS[name]:
            values = [x + w / 2, y + h / 2, w, h]
            if outlines:
                values = corners(x, y, w, h)
            scale = (width, height) * len(values)
            numbers = [f"{value / side:.6f}" for value, side in zip(values, scale, strict=False)]
            lines.append(" ".join([str(label), *numbers]))
        if lines:
            labels = layout.replace("images", "labels")
            write_text((root / labels / name).with_suffix(".txt"), "\n".join(lines))
    return f"yolo:{root}"


def ultralytics(root, **how):
    write_text(
        root / "data.yaml", "path: ../datasets/x\nval: images/val\nnames: {0: bus, 1: car}\n"
    )
    return yolo(root, **how)


def roboflow_yolo(root, **how):
    text = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['bus', 'car']\n"
    write_text(root / "data.yaml", text)
    return yolo(root, layout="valid/images", **how)


def darknet(root):
    """As datumaro writes it: ``data/`` in every path, though there is no such folder."""
    yolo(root, layout="obj_train_data")
    for path in (root / "labels").rglob("*.txt"):
        path.rename(root / "obj_train_data" / path.relative_to(root / "labels"))
    text = "classes = 2\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    write_text(root / "obj.data", text)
    write_text(root / "obj.names", "bus\ncar\n")
    write_text(root / "valid.txt", "\n".join(f"data/obj_train_data/{name}" for name in NAMES))
    return f"yolo:{root}"


def voc(root, images="JPEGImages", annotations="Annotations", lists=True):
    save_photos(root / images)
    for name in NAMES:
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><bndbox><xmin>{x + 1}</xmin>"
            f"<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for label, x, y, w, h in OBJECTS[name]
        )
        text = f"<annotation><size><width>0</width></size>{objects}</annotation>"
        write_text((root / annotations / name).with_suffix(".xml"), text)
    if lists:
        stems = "\n".join(name.removesuffix(".png") for name in NAMES)
        write_text(root / "ImageSets/Main/val.txt", stems)
    return f"voc:{root}"


def roboflow_voc(root):
    return voc(root, "valid", "valid", lists=False)


def hugging_face(root, rows, features, saved=True):
    """Save a split ``val`` with the library ``datasets``, or as parquet."""
    if saved:
        data = datasets.Dataset.from_list(rows, features=datasets.Features(features))
        datasets.DatasetDict({"val": data}).save_to_disk(root)
    else:
        data = datasets.Dataset.from_list(rows, features=datasets.Features(features))
        (root / "data").mkdir(parents=True)
        data.to_parquet(root / "data/val-00000-of-00001.parquet")
    return f"huggingface:{root}"


def encoded(pixels):
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "x.png"}


def hugging_face_boxes(root, saved=True, corners=False):
    rows = []
    for name in reversed(NAMES):
        boxes = [
            ([x, y, x + w, y + h] if corners else [x, y, w, h], label)
            for label, x, y, w, h in OBJECTS[name]
        ]
        objects = {"bbox": [box for box, _ in boxes], "category": [label for _, label in boxes]}
        rows.append({"file_name": name, "image": encoded(photo(name)), "objects": objects})
    fields = {
        "bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32"), 4)),
        "category": datasets.Sequence(datasets.ClassLabel(names=list(CLASSES))),
    }
    text = datasets.Value("string")
    features = {"file_name": text, "image": datasets.Image(), "objects": fields}
    spec = hugging_face(root, rows, features, saved)
    kind = "xyxy" if corners else "xywh"
    return spec.replace("huggingface", f"huggingface(box_format='{kind}')")


def parquet_corners(root):
    return hugging_face_boxes(root, saved=False, corners=True)


def hugging_face_maps(root):
    rows = [
        {"id": n, "image": encoded(photo(n)), "annotation": encoded(label_map(n))} for n in NAMES
    ]
    image = datasets.Image()
    features = {"id": datasets.Value("string"), "image": image, "annotation": image}
    spec = hugging_face(root, rows, features)
    return spec.replace("huggingface", f"huggingface(names={list(MAP_CLASSES)})")


def hugging_face_classes(root, saved=True):
    rows = [
        {"file_name": f"{c}/{n}", "image": encoded(photo(n)), "label": c} for n, c in LABELS.items()
    ]
    label = datasets.ClassLabel(names=list(CLASSES))
    features = {"file_name": datasets.Value("string"), "image": datasets.Image(), "label": label}
    return hugging_face(root, rows, features, saved)


def parquet_classes(root):
    return hugging_face_classes(root, saved=False)


BOXES = {
    one.__name__: one
    for one in (
        coco_folders, roboflow, cvat, label_studio, fiftyone, labelme, any_coco, ultralytics,
        roboflow_yolo, darknet, voc, roboflow_voc, hugging_face_boxes, parquet_corners,
    )
}  # fmt: skip
OUTLINES = {
    name: one
    for name, one in BOXES.items()
    if not name.endswith(("voc", "darknet", "boxes", "corners"))
}

# ---- label maps
COLOURS = ((0, 0, 0), (128, 0, 0), (0, 128, 0))
MAP_CLASSES = ("ground", "bus", "car")


def label_map(name, ignored=255):
    """uint8 (H, W): ground, the objects, and a border that is ignored."""
    labels = np.zeros(SIZE, np.uint8)
    for label, x, y, w, h in OBJECTS[name]:
        labels[y : y + h, x : x + w] = label + 1
    labels[:2] = ignored
    return labels


def map_set(root, images="images/val", labels="labels/val", ending=".png", convert=lambda m: m):
    write_text(root / "classes.txt", "\n".join(MAP_CLASSES))
    for name in NAMES:
        save(root / images / name, photo(name))
        path = root / labels / f"{name.removesuffix('.png')}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = convert(label_map(name))
        if ending.endswith(".npy"):
            np.save(path, pixels)
        else:
            Pillow.fromarray(pixels).save(path, "PNG" if ending.endswith(".PNG") else None)
    return f"maps:{root}"


def other_folders(root):
    spec = map_set(root, "pictures/val", "truth/val")
    return spec.replace("maps", "maps(images='pictures', labels='truth')")


def mmseg(root):
    return map_set(root, "img_dir/val", "ann_dir/val")


def vistas(version="", kind="labels", convert=lambda m: m):
    """Mapillary Vistas: label 3 is not evaluated, and stands for what is ignored elsewhere."""

    def write(root):
        folder = f"validation/{version}/{kind}" if version else f"validation/{kind}"
        spec = map_set(root, "validation/images", folder, convert=lambda m: convert(_with(3, m)))
        (root / "classes.txt").unlink()
        names = (*MAP_CLASSES, "unlabeled")
        labels = [
            {"name": f"object--{name}", "readable": name, "color": colour, "evaluate": n < 3}
            for n, (name, colour) in enumerate(zip(names, (*COLOURS, (9, 9, 9)), strict=True))
        ]
        name = f"config_{version}.json" if version else "config.json"
        (root / name).write_text(json.dumps({"labels": labels, "version": version}))
        return spec

    return write


def _with(label, labels):
    return np.where(labels == 255, np.uint8(label), labels)


def vistas_instances(root):
    write = vistas(kind="instances", convert=lambda m: m.astype(np.uint16) * 256 + 1)
    options = "images='{split}/images', labels='{split}/instances', divide=256"
    return write(root).replace("maps", f"maps({options})")


def vistas_colours(root):
    return vistas(convert=lambda m: np.array((*COLOURS, (9, 9, 9)), np.uint8)[m])(root)


def no_splits(root):
    return map_set(root, "images", "masks")


def camvid(root):
    return map_set(root, "val", "val_labels", "_L.png")


def beside(root):
    spec = map_set(root, "val", "val", "_mask.png")
    return spec.replace("maps", "maps(images='{split}', labels='{split}', suffix='_mask.png')")


def with_ending(ending):
    return lambda root: map_set(root, ending=ending)


def deep(root):
    spec = map_set(root, convert=lambda m: m.astype(np.uint16) * 256 + 7)
    return spec.replace("maps", "maps(divide=256)")


def reduced(root):
    spec = map_set(root, convert=lambda m: m + np.uint8(1))  # 255 becomes 0
    return spec.replace("maps", "maps(reduce_zero_label=True)")


def voc_maps(root):
    def palette(labels):
        image = Pillow.fromarray(labels)
        image.putpalette([value for n in range(256) for value in (n, 0, 255 - n)])
        return np.array(image)

    map_set(root, "JPEGImages", "SegmentationClass", convert=palette)
    stems = "\n".join(name.removesuffix(".png") for name in NAMES)
    write_text(root / "ImageSets/Segmentation/val.txt", stems)
    return f"voc_maps:{root}"


SEGMENTED = {
    "maps": map_set, "other_folders": other_folders, "mmseg": mmseg, "vistas": vistas(),
    "vistas_2": vistas("v2.0"),
    "vistas_instances": vistas_instances, "vistas_colours": vistas_colours,
    "no_splits": no_splits, "camvid": camvid, "beside": beside, "deep": deep, "reduced": reduced,
    "voc_maps": voc_maps, "hugging_face_maps": hugging_face_maps,
    **{end: with_ending(end) for end in (".PNG", ".tif", ".bmp", ".npy", "_labelIds.png")},
}  # fmt: skip


def cityscapes(root, kind="labelIds", convert=lambda m: m):
    for name in ("ulm_000000_000019", "ulm_000001_000019"):
        save(root / f"leftImg8bit/val/ulm/{name}_leftImg8bit.png", photo(name))
        labels = convert(np.arange(SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8) % 34)
        save(root / f"gtFine/val/ulm/{name}_gtFine_{kind}.png", labels)
    return f"cityscapes:{root}"


# ---- classes
LABELS = {"a.png": "car", "b.png": "bus", "c.png": "car"}


def folders(root, split="val"):
    for name, label in LABELS.items():
        save(root / split / label / name, photo(name))
    return f"folders:{root}"


def valid_folders(root):
    (root / "__MACOSX").mkdir(parents=True)
    (root / "validation" / "__MACOSX").mkdir(parents=True)
    return folders(root, "validation")


def csv_list(root):
    folders(root, "images")
    with (root / "val.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([("filename", "label"), *((f"{c}/{n}", c) for n, c in LABELS.items())])
    return f"csv:{root}"


def csv_with_splits(root):
    folders(root, "val")
    lines = [f"val/{c}/{n};{c};val" for n, c in LABELS.items()]
    write_text(
        root / "labels.csv", "\n".join(["file;class;split", *lines, "val/car/a.png;car;train"])
    )
    return f"csv:{root}"


CLASSIFIED = {
    one.__name__: one
    for one in (
        folders, valid_folders, csv_list, csv_with_splits, hugging_face_classes, parquet_classes,
    )
}  # fmt: skip

EXPECTED = [[5, 6, 25, 16], [30, 8, 55, 38]]
"""The boxes of the first image."""


def boxes_of(spec, image=0):
    return open_dataset(spec, "val")[image].target.boxes.tolist()
