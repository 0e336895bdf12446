"""Every kind of damage, in the readers of all three tasks: refused in one sentence, or left out and
counted; nothing in between.
"""

import io
import json
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust.data import open_dataset
from stillrobust.data.formats.coco_writer import write_coco
from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.data.reading import encode_png, write_image
from stillrobust.errors import BadImageError, UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.predictors import Predictor
from stillrobust.report import (
    measurements_table,
    render_page,
    results_table,
    summarize,
    to_csv,
    to_text,
)
from stillrobust.samples import Prediction, Sample
from stillrobust.storage.store import Store
from tests.toys import SIZE, Toys

PICTURE = Toys("detection")[0].image


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned():
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a quarter turn; the toys are square
    return encoded(Pillow.fromarray(PICTURE), "JPEG", exif=exif)


def png_header(width, height):
    """A PNG that claims a size, with its end."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


WHOLE = encode_png(PICTURE)
BAD = {
    "cut.png": (WHOLE[: len(WHOLE) // 2], "cut off or empty"),
    "empty.jpg": (b"", "cut off or empty"),
    "text.png": (b"this is no image at all, but long enough", "cannot be decoded"),
    "bomb.png": (png_header(20_000, 9_000), "more than 178,956,970 pixels"),
}
GOOD = {
    "cmyk.jpg": encoded(Pillow.fromarray(PICTURE).convert("CMYK"), "JPEG"),
    "deep.png": encode_png(PICTURE.astype(np.uint16) * 257),
    "turned.jpg": turned(),
    "whole.png": WHOLE,
}
FILES = {**{name: content for name, (content, _) in BAD.items()}, **GOOD}
FAULTS = {name: fault for name, (_, fault) in BAD.items()}


def folders(root):
    place = root / "val" / "a"
    place.mkdir(parents=True)
    for name, content in FILES.items():
        (place / name).write_bytes(content)
    return "folders", "a/", {}


def imagenet(root):
    wnid = wordnet_ids()[0]
    place = root / "val" / wnid
    place.mkdir(parents=True)
    for name, content in FILES.items():
        (place / name).write_bytes(content)
    return "imagenet", f"{wnid}/", {}


def maps(root, images="images/val", labels="labels/val"):
    """Beside damaged images: label maps that do not fit, images without one, and the reverse."""
    (root / images).mkdir(parents=True)
    (root / labels).mkdir(parents=True)
    (root / "classes.txt").write_text("ground\nwide\n")
    shape = np.ones((SIZE, SIZE), np.uint8)
    for name, content in FILES.items():
        (root / images / name).write_bytes(content)
        write_image(root / labels / f"{name.partition('.')[0]}.png", shape)
    labelled = {
        "small": shape[:9],
        "deep_labels": shape.astype(np.uint16),
        "many": shape + 199,
        "lone_labels": shape,
    }
    for name, values in labelled.items():
        write_image(root / labels / f"{name}.png", values)
    torn = encode_png(PICTURE[..., 0])
    (root / labels / "torn.png").write_bytes(torn[: len(torn) // 2])
    for name in ("small", "deep_labels", "many", "torn", "lone"):
        (root / images / f"{name}.png").write_bytes(WHOLE)
    (root / images / "double.png").write_bytes(WHOLE)
    (root / images / "double.jpg").write_bytes(GOOD["turned.jpg"])
    write_image(root / labels / "double.png", shape)
    return (
        "maps",
        "",
        {
            "small.png": "a label map of another size",
            "deep_labels.png": "a label map that is not of 8 bits",
            "many.png": "a label map with an unknown class",
            "torn.png": "a label map that cannot be decoded",
            "lone.png": "no label map",
            "lone_labels.png": "label map without an image",
            "double.png": "two images for one label map",
            "double.jpg": "two images for one label map",
        },
    )


def ade20k(root):
    kind = maps(root, "images/validation", "annotations/validation")
    return "ade20k", *kind[1:]


def coco(root):
    """Beside damaged images: what the annotations say is wrong, one image each."""
    toys, names = Toys("detection", 30), [*FILES, *(f"{number}.png" for number in range(12))]
    samples = [toys[number] for number in range(len(names))]
    for sample, name in zip(samples, names, strict=True):
        object.__setattr__(sample.target, "image_id", name)
    write_coco(root, "val", samples, toys.info.classes)
    for name, content in FILES.items():
        (root / "val" / name).write_bytes(content)
    path = root / "annotations/instances_val.json"
    document = json.loads(path.read_text())
    image = {entry["file_name"]: entry for entry in document["images"]}
    of = {
        entry["file_name"]: document["annotations"][place]
        for place, entry in enumerate(document["images"])
    }
    (root / "val/0.png").unlink()
    image["2.png"]["id"] = image["1.png"]["id"]
    document["annotations"].append({**of["3.png"]})
    document["images"].append({**image["5.png"], "id": 999})
    document["annotations"].append({**of["6.png"], "id": 998, "image_id": 997})
    of["7.png"]["bbox"] = [60, 60, 40, 40]
    del image["8.png"]["height"]
    image["9.png"]["width"] += 1
    of["9.png"]["segmentation"] = {"size": [SIZE, SIZE + 1], "counts": [SIZE * (SIZE + 1)]}
    of["10.png"]["segmentation"] = {"size": [SIZE, SIZE], "counts": [1, 2]}
    path.write_text(json.dumps(document))
    twice = "a duplicate image id"
    return (
        "coco",
        "",
        {
            "0.png": "listed, but missing",
            "1.png": twice,
            "2.png": twice,
            "3.png": "a duplicate annotation id",
            "5.png": "a file that is listed twice",
            "annotation 998": "annotation of an image that is not listed",
            f"annotation {of['2.png']['id']}": "annotation of an image that is not listed",
            "7.png": "a damaged annotation",
            "8.png": "no size, or one that cannot be",
            "9.png": "not of the size that its annotations say",
            "10.png": "a damaged mask",
        },
    )


BUILDERS = {build.__name__: build for build in (folders, imagenet, maps, ade20k, coco)}


def spec_of(kind, root, leave_out=True):
    arguments = ["part=True"] if kind in ("imagenet", "ade20k") else []
    arguments += ["leave_out_bad=True"] if leave_out else []
    return f"{kind}({', '.join(arguments)}):{root}" if arguments else f"{kind}:{root}"


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_what_is_bad_is_left_out_and_said_and_nothing_else_is(build, tmp_path):
    kind, prefix, others = build(tmp_path)
    data = open_dataset(spec_of(kind, tmp_path), "val")
    expected = {**{prefix + name: fault for name, fault in FAULTS.items()}, **others}
    assert dict(data.info.left_out) == expected
    samples = read_all(spec_of(kind, tmp_path))
    found = [sample.target.image_id for sample in samples]
    assert not set(found) & set(expected)
    assert {prefix + name for name in GOOD} <= set(found)
    assert len(found) == len(set(found)) == data.info.size
    sizes = {sample.image.shape for sample in samples}
    assert sizes == {(224, 224, 3) if kind == "imagenet" else (SIZE, SIZE, 3)}


def read_all(spec):
    data = open_dataset(spec, "val")
    return [data[index] for index in range(len(data))]


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_otherwise_it_is_refused(build, tmp_path):
    kind, *_ = build(tmp_path)
    with pytest.raises(UserError) as caught:
        read_all(spec_of(kind, tmp_path, leave_out=False))
    assert "\n" not in str(caught.value)


def says_wide(task="classification"):
    answer = Prediction(probabilities=np.array([1], np.float32))
    return Predictor(task, "toy", lambda images: [answer for _ in images], "weights")


def test_numbers_carry_what_was_left_out(tmp_path):
    folders(tmp_path / "data")
    spec, results = spec_of("folders", tmp_path / "data"), tmp_path / "results"
    evaluate(
        says_wide(),
        open_dataset(spec, "val"),
        results,
        Protocol(severities=(1,)),
        log=tmp_path / "log",
    )
    store = Store(results)
    found = store.measurements()
    counts = {"cannot be decoded": 1, "cut off or empty": 2, "more than 178,956,970 pixels": 1}
    assert all(one.protocol["left_out"] == counts and one.images == len(GOOD) for one in found)
    assert store.runs()[0].protocol["left_out_of_the_data"] == {
        f"a/{name}": fault for name, fault in FAULTS.items()
    }
    sentence = (
        "4 images are left: 1 cannot be decoded, 2 cut off or empty, 1 more than 178,956,970"
        " pixels."
    )
    summary = summarize(store)
    assert sentence in to_text(results_table(summary.rows), 1000)
    assert sentence in render_page(store, summary)
    assert "2 cut off or empty" in (tmp_path / "log").read_text()
    for text in (
        to_csv(results_table(summary.rows)),
        to_csv(measurements_table(store.runs(), found)),
    ):
        heading, line = (row.split(",") for row in text.splitlines()[:2])
        assert (line[heading.index("images")], line[heading.index("left_out")]) == ("4", "4")
    before = {one.key for one in found}
    (tmp_path / "data/val/a/cut.png").write_bytes(WHOLE)  # mended: another number
    with pytest.raises(UserError, match=r"data, left_out differ; .*--replace"):
        evaluate(says_wide(), open_dataset(spec, "val"), results, Protocol(severities=(1,)))
    mended = open_dataset(spec, "val")
    evaluate(says_wide(), mended, results, Protocol(severities=(1,)), replace_stale=True)
    assert not before & {one.key for one in store.measurements()}


def test_where_nothing_is_bad_the_number_is_the_same(tmp_path):
    place = tmp_path / "val" / "a"
    place.mkdir(parents=True)
    (place / "whole.png").write_bytes(WHOLE)
    assert (
        open_dataset(spec_of("folders", tmp_path), "val").info
        == open_dataset(f"folders:{tmp_path}", "val").info
    )


def test_nothing_but_bad_images_is_refused(tmp_path):
    place = tmp_path / "val" / "a"
    place.mkdir(parents=True)
    (place / "cut.png").write_bytes(BAD["cut.png"][0])
    with pytest.raises(UserError, match="all are bad: 1 cut off or empty"):
        open_dataset(spec_of("folders", tmp_path), "val")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("cifar10(leave_out_bad=True):x", "the format cifar10 has no 'leave_out_bad'"),
        ("folders(leave_out_bad=1):x", "Expected True or False for leave_out_bad"),
        ("folders(part=True):x", "the format folders has no 'part'"),
    ],
)
def test_where_it_cannot_be_said(spec, sentence):
    with pytest.raises(UserError, match=sentence):
        open_dataset(spec, "val")


def test_a_half_download_is_not_taken_for_bad_images(tmp_path):
    ade20k(tmp_path)
    with pytest.raises(UserError, match="found 15"):
        open_dataset(f"ade20k(leave_out_bad=True):{tmp_path}", "val")


def test_a_bad_image_crosses_processes():
    error = pickle.loads(pickle.dumps(BadImageError("sentence", "fault")))
    assert (str(error), error.fault) == ("sentence", "fault")


class Torn(Toys):
    def __getitem__(self, index):
        if index == 3:
            raise BadImageError("Expected image 3 to be whole", "cut off or empty")
        return Sample(super().__getitem__(index).image, super().__getitem__(index).target)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_of_the_loader_says_it_in_the_same_sentence(tmp_path, workers):
    model = Predictor(
        "classification",
        "toy",
        lambda images: [Prediction(probabilities=np.ones(2) / 2) for _ in images],
        "w",
    )
    with pytest.raises(UserError, match=r"^Expected image 3 to be whole$"):
        evaluate(
            model, Torn("classification"), tmp_path, Protocol((), batch_size=2, workers=workers)
        )
