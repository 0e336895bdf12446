"""Reading and checking the three formats; the oracle for masks is pycocotools."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as oracle
import pytest
from PIL import Image as PillowImage

from stillrobust.data import CorruptedView, Subset, open_dataset, read_image
from stillrobust.data.formats.masks import decode_mask, encode_mask
from stillrobust.errors import UserError


def save(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.asarray(pixels, np.uint8))
    return path


def document() -> dict[str, Any]:
    """Two 10x8 images; the first has a 2x3 square mask with its corner at (1, 2), the second has
    nothing.
    """
    square = [1, 2, 3, 2, 3, 5, 1, 5]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 10, "height": 8} for n in (1, 2)],
        "categories": [{"id": 7, "name": "late"}, {"id": 3, "name": "early"}],
        "annotations": [
            {
                "id": 5,
                "image_id": 1,
                "category_id": 7,
                "bbox": [1, 2, 2, 3],
                "area": 6,
                "iscrowd": 0,
                "segmentation": [square],
            }
        ],
    }


def write(root: Path, content: Any) -> Path:
    for n in (1, 2):
        save(root / "val" / f"{n}.png", np.zeros((8, 10, 3)))
    (root / "annotations").mkdir(exist_ok=True)
    write_annotations(root, content)
    return root


def write_annotations(root: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations" / "instances_val.json").write_text(text)


def test_hand_solved_coco(tmp_path: Path) -> None:
    data = open_dataset(f"coco:{write(tmp_path, document())}", "val")
    assert data.info.classes == ("early", "late")
    assert (len(data), data.info.has_masks) == (2, True)
    target = data[0].target
    assert target.image_id == "1.png"
    assert target.boxes is not None
    assert target.boxes.tolist() == [[1, 2, 3, 5]]
    assert target.labels is not None
    assert target.labels.tolist() == [1]
    expected = np.zeros((8, 10), bool)
    expected[2:5, 1:3] = True
    assert target.masks is not None
    np.testing.assert_array_equal(target.masks, expected[None])
    assert data[1].target.boxes is not None
    assert data[1].target.boxes.shape == (0, 4)
    with pytest.raises(UserError, match="at least one image of 32 pixels"):
        open_dataset(f"coco:{tmp_path}", "val", training=True)


@pytest.mark.parametrize(
    "outline", [None, [], {}, [[1, 2, 10**400, 4, 5, 6]], [[1, 2, 3, 4]], "absent"]
)
def test_one_object_without_outline_leaves_no_masks(tmp_path: Path, outline: Any) -> None:
    """What is no polygon at all is told when the image is read."""
    content = document()
    content["annotations"][0] |= {"segmentation": outline}
    if outline == "absent":
        del content["annotations"][0]["segmentation"]
    data = open_dataset(f"coco:{write(tmp_path, content)}", "val")
    if outline and outline != "absent":
        with pytest.raises(
            UserError, match="polygons of at least three x, y pairs in annotation 5"
        ):
            data[0]
    else:
        assert not data.info.has_masks
        assert data[0].target.masks is None


def test_objects_go_to_their_images_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    """Rows are shuffled; each image keeps its objects in the order of the file."""
    content = document()
    base = content["annotations"][0]
    content["images"].reverse()
    content["annotations"] = [
        base
        | {
            "id": number,
            "image_id": image,
            "bbox": [number, 1, 1, 1],
            "segmentation": [[number, 1, number + 1, 1, number + 1, 2, number, 2]],
        }
        for number, image in ((9, 2), (4, 1), (8, 2), (1, 2), (7, 1))
    ]
    data = open_dataset(f"coco:{write(tmp_path, content)}", "val")
    assert [data[index].target.boxes[:, 0].tolist() for index in range(2)] == [[4, 7], [9, 8, 1]]
    assert [mask.any(0).argmax() for mask in data[1].target.masks] == [9, 8, 1]


def test_names_that_a_listing_does_not_show(tmp_path: Path) -> None:
    """A file in a subfolder, and links inside the folder: all are found; a folder of that name is
    not an image.
    """
    root = write(tmp_path, document())
    (root / "val" / "sub").mkdir()
    (root / "val" / "1.png").rename(root / "val" / "sub" / "1.png")
    (root / "val" / "1.png").symlink_to(root / "val" / "sub" / "1.png")
    content = document()
    content["images"][1]["file_name"] = "sub/1.png"
    write_annotations(root, content)
    assert len(open_dataset(f"coco:{root}", "val")) == 2
    (root / "val" / "sub" / "1.png").unlink()
    (root / "val" / "sub" / "1.png").mkdir()
    with pytest.raises(UserError, match="2 of 2 images are missing"):
        open_dataset(f"coco:{root}", "val")


def test_one_pixel_overshoot_is_clipped(tmp_path: Path) -> None:
    content = document()
    content["annotations"][0]["bbox"] = [-0.5, 2, 11.5, 7]
    boxes = open_dataset(f"coco:{write(tmp_path, content)}", "val")[0].target.boxes
    assert boxes is not None
    assert boxes.tolist() == [[0, 2, 10, 8]]


def edit(path: str, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        place: Any = content
        for key in keys:
            place = place[key]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            edit("annotations.0.category_id", 4),
            "declared category in annotation 5 .* got 4; declare it or use one of: 3, 7",
        ),
        (
            edit("annotations.0.bbox", [1, 2, 20, 3]),
            "inside its image of 10x8 pixels in annotation 5",
        ),
        (edit("annotations.0.bbox", [1, 2, float("nan"), 3]), r"box \[x, y, width, height\]"),
        (edit("annotations.0.bbox", [1, 2]), r"box \[x, y, width, height\]"),
        (edit("annotations.0.image_id", 9), "image id .* got 9"),
        (edit("annotations.0.bbox", [1, 2, 10**400, 3]), r"box \[x, y, width, height\]"),
        (edit("annotations.0.bbox", [10**400, 0.5, 1, 1]), r"box \[x, y, width, height\]"),
        (edit("annotations.0.bbox", [True, 2, 3, 3]), r"box \[x, y, width, height\]"),
        (edit("annotations.0.area", -1), "area >= 0"),
        (edit("annotations.0.area", 10**400), "area >= 0"),
        (edit("annotations.0.iscrowd", "yes"), "iscrowd 0 or 1"),
        (edit("images.0.file_name", "../1.png"), "inside the image folder"),
        (edit("images.0.file_name", "/etc/passwd"), "inside the image folder"),
        (edit("images.0.file_name", "..\\1.png"), "inside the image folder"),
        (edit("images.0.file_name", "C:\\9.png"), "inside the image folder"),
        (edit("images.0.file_name", "\udce9.png"), "Expected a file name in image 1"),
        (edit("images.0.file_name", None), "Expected a file name in image 1"),
        (edit("images.0.file_name", "9.png"), "1 of 2 images are missing: 9.png"),
        (edit("images.0.file_name", "2.png"), "'2.png' twice"),
        (edit("images.0.id", 2), "image id once .* 2 twice"),
        (edit("images.0.width", 0), "height and width"),
        (edit("images.0.width", 10**30), "height and width"),
        (edit("images", []), "at least one image"),
        (edit("categories", []), "at least one category"),
        (edit("categories.0.name", "early"), "distinct category names"),
        (edit("annotations", None), "list of objects 'annotations'"),
    ],
)
def test_bad_coco_is_refused_in_one_sentence(tmp_path: Path, change: Any, sentence: str) -> None:
    content = document()
    change(content)
    with pytest.raises(UserError, match=sentence) as caught:
        open_dataset(f"coco:{write(tmp_path, content)}", "val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "", '{"images": 3}', "[" * 100_000])
def test_malformed_json(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="Expected"):
        open_dataset(f"coco:{write(tmp_path, text)}", "val")


def test_symlink_out_of_the_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "set", document())
    outside = save(tmp_path / "outside.png", np.zeros((8, 10, 3)))
    (root / "val" / "1.png").unlink()
    (root / "val" / "1.png").symlink_to(outside)
    with pytest.raises(UserError, match="link out of it"):
        open_dataset(f"coco:{root}", "val")


def test_image_of_another_size_or_damaged(tmp_path: Path) -> None:
    data = open_dataset(f"coco:{write(tmp_path, document())}", "val")
    save(tmp_path / "val" / "1.png", np.zeros((10, 8, 3)))
    with pytest.raises(UserError, match=r"10x8 pixels .* it is 8x10"):
        data[0]
    (tmp_path / "val" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be decoded"):
        data[0]


def test_missing_split_lists_what_exists(tmp_path: Path) -> None:
    write(tmp_path, document())
    with pytest.raises(
        UserError, match=r"splits found: val\); choose one that exists: coco\(split='val'\):"
    ):
        open_dataset(f"coco:{tmp_path}", "test")
    with pytest.raises(UserError, match="Did you mean: coco"):
        open_dataset("cocoo:x", "val")
    with pytest.raises(UserError, match="FORMAT:PATH"):
        open_dataset("x", "val")


def test_masks_agree_with_pycocotools() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        height, width = (int(side) for side in random.integers(1, 40, 2))
        mask = random.random((height, width)) < random.choice([0, 0.1, 0.6, 1])
        reference = oracle.encode(np.asfortranarray(mask, np.uint8))
        ours = encode_mask(mask)
        assert ours["counts"] == reference["counts"].decode()
        np.testing.assert_array_equal(decode_mask(ours, (height, width), "x"), mask)
        flat = mask.T.ravel()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
        runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        again = decode_mask({"size": [height, width], "counts": runs}, (height, width), "x")
        np.testing.assert_array_equal(again, mask)
        polygons = [
            (random.random(2 * int(random.integers(3, 9))) * 45 - 3).tolist() for _ in range(2)
        ]
        expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, height, width))).astype(
            bool
        )
        np.testing.assert_array_equal(decode_mask(polygons, (height, width), "x"), expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 4], "counts": [3, 4]},
        {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4, 5], "counts": [16]},
        {"size": [4, 4], "counts": "\x7f\x7f"},
        {"size": [4, 4], "counts": "o" * 90},
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, 1e300]],
        "mask",
    ],
)
def test_damaged_masks(segmentation: Any) -> None:
    with pytest.raises(UserError, match="annotation 3"):
        decode_mask(segmentation, (4, 4), "annotation 3")


def test_read_image_makes_rgb(tmp_path: Path) -> None:
    colour = save(tmp_path / "c.png", np.full((2, 3, 4), (10, 20, 30, 0)))
    assert read_image(colour)[0, 0].tolist() == [30, 20, 10]
    assert read_image(save(tmp_path / "g.png", np.full((2, 3), 9)))[0, 0].tolist() == [9, 9, 9]
    with pytest.raises(UserError, match="No such file"):
        read_image(tmp_path / "none.png")


def maps(root: Path) -> Path:
    for split in ("train", "val"):
        save(root / "images" / split / "a.jpg", np.zeros((2, 3, 3)))
        save(root / "labels" / split / "a.png", [[0, 1, 255], [0, 0, 0]])
    return root


def test_maps(tmp_path: Path) -> None:
    save(maps(tmp_path) / "labels" / "train" / "a.png", [[0, 4, 255], [0, 0, 0]])
    data = open_dataset(f"maps:{tmp_path}", "val")
    assert len(data.info.classes) == 5  # the scan covers train too
    label_map = data[0].target.label_map
    assert label_map is not None
    assert label_map.tolist() == [[0, 1, 255], [0, 0, 0]]
    palette = PillowImage.fromarray(np.array([[2, 1, 0], [0, 0, 3]], np.uint8))
    palette.putpalette([9, 8, 7] * 256)
    palette.save(tmp_path / "labels" / "val" / "a.png")
    label_map = data[0].target.label_map
    assert label_map is not None
    assert label_map.tolist() == [[2, 1, 0], [0, 0, 3]]


def test_what_macos_and_windows_leave_in_maps(tmp_path: Path) -> None:
    """A hidden file beside every file on foreign disks, and a mark before the first letter of a
    text.
    """
    root = maps(tmp_path)
    for hidden in (root / "images" / "val" / "._a.png", root / "labels" / "val" / "._a.png"):
        hidden.write_bytes(b"no picture")
    assert len(open_dataset(f"maps:{root}", "val")) == 1
    (root / "classes.txt").write_text("street\nsky\n", encoding="utf-8-sig")
    assert open_dataset(f"maps:{root}", "val").info.classes == ("street", "sky")


def test_bad_maps(tmp_path: Path) -> None:
    root = maps(tmp_path)
    (root / "classes.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"0\.\.0 or 255 in .*a.png, but got 1"):
        open_dataset(f"maps:{root}", "val")[0]
    save(root / "labels" / "val" / "a.png", [[0]])
    with pytest.raises(UserError, match="3x2, but it is 1x1"):
        open_dataset(f"maps:{root}", "val")[0]
    save(root / "labels" / "val" / "a.png", np.zeros((2, 3, 3)))
    with pytest.raises(UserError, match="mode 'RGB'"):
        open_dataset(f"maps:{root}", "val")[0]
    save(root / "labels" / "val" / "b.png", [[0]])
    with pytest.raises(UserError, match="Expected an image"):
        open_dataset(f"maps:{root}", "val")
    (root / "labels" / "val" / "a.png").unlink()
    with pytest.raises(UserError, match="Expected the label map"):
        open_dataset(f"maps:{root}", "val")
    with pytest.raises(UserError, match="found: train, val"):
        open_dataset(f"maps:{root}", "test")


def test_folders_and_views(tmp_path: Path) -> None:
    for split, names in (("train", "abc"), ("val", "c")):
        for name in names:
            save(tmp_path / split / name / "1.png", np.zeros((2, 3, 3)))
    data = open_dataset(f"folders:{tmp_path}", "val")
    assert data[0].target.label == 2  # as in train, though val holds this class alone
    assert data[0].target.image_id == "c/1.png"
    assert CorruptedView(data, "fog", 0).info == data.info
    assert CorruptedView(data, "fog", 1).info.fingerprint != data.info.fingerprint
    train = open_dataset(f"folders:{tmp_path}", "train")
    assert [Subset(train, [2, 0])[n].target.label for n in (0, 1)] == [2, 0]
    assert (len(Subset(train, 2)), Subset(train, 9).info) == (2, train.info)
    with pytest.raises(UserError, match=re.escape("0..2")):
        Subset(train, [3])
    save(tmp_path / "val" / "z" / "1.png", np.zeros((2, 3, 3)))
    with pytest.raises(UserError, match="'z' as well"):
        open_dataset(f"folders:{tmp_path}", "val")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found no image"):
        open_dataset(f"folders:{tmp_path}", "empty")


def test_fingerprint_follows_images_and_annotations(tmp_path: Path) -> None:
    def digest() -> str:
        return open_dataset(f"coco:{tmp_path}", "val").info.fingerprint

    write(tmp_path, document())
    first = digest()
    assert digest() == first
    save(tmp_path / "val" / "2.png", np.ones((8, 10, 3)))
    second = digest()
    content = document()
    content["annotations"][0]["bbox"] = [1, 2, 2, 2]
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    assert len({first, second, digest()}) == 3
