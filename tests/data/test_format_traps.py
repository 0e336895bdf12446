"""The traps of each format: what is read with a note, and what is refused in one sentence."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust.data import FORMATS, detect_formats, open_dataset
from stillrobust.data.check import check_dataset
from stillrobust.data.formats import cityscapes, maps
from stillrobust.errors import UserError
from tests.data import format_writers as writers
from tests.data.format_writers import EXPECTED, SIZE, boxes_of, save, write_text

# ---- splits and options


def test_splits_by_option_and_by_their_usual_names(tmp_path):
    writers.folders(tmp_path, "test")
    writers.folders(tmp_path, "fold1")
    dataset = open_dataset(f"folders:{tmp_path}", "val")
    assert dataset.info.notes == ("there is no split 'val'; 'test' is read in its place",)
    assert dataset.info.notes[0] in check_dataset(f"folders:{tmp_path}").text()
    assert open_dataset(f"folders(split='fold1'):{tmp_path}", "val").info.notes == ()
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(UserError, match=r"choose one that exists: folders\(split='fold1'\):"):
        open_dataset(f"folders:{tmp_path}", "val")
    assert not check_dataset(f"folders:{tmp_path}").whole


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("coco(splitt='x'):p", "the format coco has no 'splitt'. Did you mean: split"),
        ("coco(split=3):p", "Expected the name of a split, .* for split in .* but got 3"),
        ("coco(classes='car'):p", "Expected a list of different class names"),
        ("coco(classes=['a', 'a']):p", "Expected a list of different class names"),
        ("maps(foreground=0):p", "Expected a whole number 1 to 255"),
        ("maps(colors={'a': (1, 2)}):p", "Expected a file below PATH"),
        ("coco(annotations='../x.json'):{}", "Expected a place inside"),
        ("coco:{}/nowhere", "there is no such folder"),
        ("maps(reduce_zero_label=True, foreground=255):{}", "Expected one of foreground and"),
        ("p", "stillrobust data check PATH"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, spec, sentence):
    writers.map_set(tmp_path)
    with pytest.raises(UserError, match=sentence) as caught:
        open_dataset(spec.replace("{}", str(tmp_path)), "val")
    assert "\n" not in str(caught.value)


def test_every_option_has_a_help_text():
    for name, data_format in FORMATS.items():
        for option in data_format.options:
            assert option.help.endswith("."), (name, option.name)


def test_the_name_of_a_file_stands_for_its_folder(tmp_path):
    writers.fiftyone(tmp_path / "f")
    writers.ultralytics(tmp_path / "y")
    assert boxes_of(f"coco:{tmp_path / 'f' / 'labels.json'}") == EXPECTED
    assert boxes_of(f"yolo:{tmp_path / 'y' / 'data.yaml'}") == EXPECTED


def test_a_folder_of_no_format(tmp_path):
    (tmp_path / "photos").mkdir()
    assert detect_formats(tmp_path) == []
    with pytest.raises(UserError, match="which fits none of them"):
        check_dataset(str(tmp_path))


# ---- YOLO


def yolo_line(root, line, name="a"):
    write_text(root / f"labels/val/{name}.txt", line)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("2 0.5 0.5 0.1 0.1", r"Expected a class 0\.\.1"),
        ("0.5 0.5 0.5 0.1 0.1", r"Expected a class 0\.\.1"),
        ("0 30 20 10 10", r"Expected fractions 0\.\.1 of the image's size"),
        ("0 0.5 0.5 0.1", "Expected a class with four numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "Expected a class with four numbers"),
        ("0 nan 0.5 0.1 0.1", "Expected a class with four numbers"),
        ("car 0.5 0.5 0.1 0.1", "Expected a class with four numbers"),
    ],
)
def test_lines_that_are_no_box(tmp_path, line, sentence):
    spec = writers.ultralytics(tmp_path)
    yolo_line(tmp_path, line)
    with pytest.raises(UserError, match=sentence):
        open_dataset(spec, "val")
    left = open_dataset(f"yolo(leave_out_bad=True):{tmp_path}", "val")
    assert left.info.left_out == (("a.png", "a damaged annotation"),)


def test_yolo_files_that_are_read_with_a_note(tmp_path):
    spec = writers.ultralytics(tmp_path)
    yolo_line(tmp_path, "1 0.25 0.275 0.333333 0.25\n\n1 0.25 0.275 0.333333 0.25\n")
    write_text(tmp_path / "labels/val.cache", "not read")
    dataset = open_dataset(spec, "val")
    assert dataset[0].target.boxes.tolist() == EXPECTED[:1]
    notes = dataset.info.notes
    assert "images without a label file, which are background: 1" in notes
    assert "lines that are twice in a label file, used once: 1" in notes
    yolo_line(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.5", "b")  # a polygon beside boxes
    assert "1 of 2 objects have no outline" in "".join(open_dataset(spec, "val").info.notes)


def test_other_tasks_of_yolo_are_refused_by_name(tmp_path):
    spec = writers.ultralytics(tmp_path)
    square = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5"
    yolo_line(tmp_path, square)
    yolo_line(tmp_path, square, "b")
    with pytest.raises(UserError, match=r"rotated boxes \(OBB\) .*yolo\(polygons=True\)"):
        open_dataset(spec, "val")
    assert open_dataset(f"yolo(polygons=True):{tmp_path}", "val").info.has_masks
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("kpt_shape: [17, 3]\n")
    with pytest.raises(UserError, match="kpt_shape"):
        open_dataset(spec, "val")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("names: [a, a]\nval: images/val", "different class names"),
        ("names: [a, b]\nnc: 3\nval: images/val", "as many names as nc"),
        ("names: {1: a, 2: b}\nval: images/val", r"Expected a class 1\.\.2"),
        ("names: [a, b]\nval: 3", "Expected a folder, a text file or a list"),
        ("names: [a, b]\nval: nowhere", "Expected split 'val'"),
        ("names: [a]\nnames: [b]\nval: images/val", "'names' is given twice"),
        ("a: &a [x]\nnames: &b [*b]\nval: images/val", "contains itself"),
        ("names: " + "[" * 100_000, "nested too deeply"),
        ("!!python/object/apply:os.system ['true']", "Expected valid YAML"),
        ("- x", "Expected keys such as names"),
        ("names: [a, b", "Expected valid YAML"),
    ],
)
def test_yaml_files_that_are_wrong(tmp_path, text, sentence):
    spec = writers.ultralytics(tmp_path)
    write_text(tmp_path / "data.yaml", text)
    with pytest.raises(UserError, match=sentence) as caught:
        open_dataset(spec, "val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["images/val", "val/images"])
def test_a_yaml_file_without_splits(tmp_path, folder):
    """supervision writes the names only."""
    spec = writers.yolo(tmp_path, layout=folder)
    write_text(tmp_path / "data.yaml", "nc: 2\nnames: [bus, car]\n")
    assert boxes_of(spec) == EXPECTED
    assert detect_formats(tmp_path) == [spec]


def test_a_yaml_file_without_splits_beside_one_folder(tmp_path):
    """supervision without a split; text files in ``labels/`` set it apart from label maps."""
    spec = writers.yolo(tmp_path, layout="images")
    write_text(tmp_path / "data.yaml", "nc: 2\nnames: [bus, car]\n")
    assert boxes_of(spec) == EXPECTED
    assert detect_formats(tmp_path) == [spec]
    info = open_dataset(spec, "val").info
    assert info.name == tmp_path.name
    assert "the set has no splits" in info.notes[0]
    (tmp_path / "labels").rename(tmp_path / "elsewhere")
    assert detect_formats(tmp_path) == []


def test_darknet_without_classes_is_one_sentence(tmp_path):
    spec = writers.darknet(tmp_path / "images" / "set")
    assert boxes_of(spec) == EXPECTED, "label files lie beside images, also below a folder 'images'"
    (tmp_path / "images/set/obj.names").unlink()
    with pytest.raises(UserError, match=r"Expected a line 'names = FILE' in .*obj\.data"):
        open_dataset(spec, "val")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.json": '{"imagePath": "a.png", "shapes": []}'}, "JSON files of labelme; convert"),
        ({"annotations.xml": "<annotations><image/></annotations>"}, "an XML file of CVAT; export"),
        ({"Annotations/x/a.xml": "<annotation><filename>"}, "XML files that are no Pascal VOC"),
        ({"images/a.png": "", "labels/a.txt": "0 .5 .5 .1 .1"}, "write .*data.yaml with the line"),
    ],
)
def test_layouts_that_are_not_read_are_named(tmp_path, files, sentence):
    for name, text in files.items():
        write_text(tmp_path / name, text)
    with pytest.raises(UserError, match=sentence) as caught:
        check_dataset(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_set_without_a_pixel_that_counts_is_not_whole(tmp_path):
    """datumaro writes ids of its own into a layout of Cityscapes, where they mean nothing."""
    image = np.zeros((8, 12, 3), np.uint8)
    save(tmp_path / "leftImg8bit/val/a/x_leftImg8bit.png", image)
    save(tmp_path / "gtFine/val/a/x_gtFine_labelIds.png", image[..., 0] + 2)
    report = check_dataset(f"cityscapes:{tmp_path}")
    assert not report.whole
    assert "all of 1 images are ignored" in report.text()


def test_voc_says_how_it_counts(tmp_path):
    writers.voc(tmp_path)
    notes = open_dataset(f"voc:{tmp_path}", "val").info.notes
    assert any(f"voc(corners='from_0'):{tmp_path}" in note for note in notes)
    assert not open_dataset(f"voc(corners='inclusive'):{tmp_path}", "val").info.notes


def test_lists_of_images(tmp_path):
    """A text file of images, and a list of folders."""
    spec = writers.ultralytics(tmp_path)
    whole = open_dataset(spec, "val").info
    lines = "\n".join(f"./images/val/{name}" for name in writers.NAMES)
    write_text(tmp_path / "val.txt", lines)
    write_text(tmp_path / "data.yaml", "val: val.txt\nnames: [bus, car]")
    assert open_dataset(spec, "val").info.fingerprint == whole.fingerprint
    write_text(tmp_path / "data.yaml", "val: [images/val/sub, images/val]\nnames: [bus, car]")
    assert len(open_dataset(spec, "val")) == 3


# ---- Pascal VOC


def test_difficult_objects_are_ignored_as_crowds_are(tmp_path):
    spec = writers.voc(tmp_path)
    path = tmp_path / "Annotations/a.xml"
    path.write_text(path.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>", 1))
    assert open_dataset(spec, "val")[0].target.crowd.tolist() == [True, False]


def test_boxes_that_count_from_zero(tmp_path):
    spec = writers.voc(tmp_path)
    path = tmp_path / "Annotations/b.xml"
    path.write_text(path.read_text().replace("<xmin>1<", "<xmin>0<"))
    notes = open_dataset(spec, "val").info.notes
    assert any("1 boxes begin at pixel 0" in note and "corners='from_0'" in note for note in notes)
    assert boxes_of(f"voc(corners='from_0'):{tmp_path}")[0] == [6, 7, 25, 16]
    path.write_text(path.read_text().replace("<xmax>60<", "<xmax>61<"))
    assert "corners='from_1'" in "".join(open_dataset(spec, "val").info.notes)
    assert boxes_of(f"voc(corners='from_1'):{tmp_path}")[0] == [5, 6, 24, 15]


BOMB = (
    '<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;">]><annotation><name>&c;</name></annotation>'
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, "it has a DOCTYPE"),
        ("<annotation>", "Expected an XML file of annotations"),
        ("<html></html>", "Expected <annotation>"),
        ("<annotation><object><name>car</name></object></annotation>", "bndbox of four numbers"),
    ],
)
def test_xml_that_is_refused(tmp_path, text, sentence):
    spec = writers.voc(tmp_path)
    write_text(tmp_path / "Annotations/a.xml", text)
    with pytest.raises(UserError, match=sentence):
        open_dataset(spec, "val")
    left = open_dataset(f"voc(leave_out_bad=True):{tmp_path}", "val").info.left_out
    assert left == (("a.png", "a damaged annotation"),)


# ---- label maps


def test_masks_of_0_and_255(tmp_path):
    """255 would be ignored, so the set is refused until the person says what it means."""
    spec = writers.map_set(tmp_path, convert=lambda m: (m == 2).astype(np.uint8) * 255)
    (tmp_path / "classes.txt").write_text("background\nobject\n")
    with pytest.raises(UserError, match=r"hold 0 and 255 only.*maps\(foreground=255\):"):
        open_dataset(spec, "val")
    assert not check_dataset(spec).whole
    dataset = open_dataset(f"maps(foreground=255):{tmp_path}", "val")
    assert dataset.info.classes == ("background", "object")
    expected = (writers.label_map("a.png") == 2).astype(np.uint8)
    np.testing.assert_array_equal(dataset[0].target.label_map, expected)
    (tmp_path / "classes.txt").write_text("everything\n")
    assert 255 in open_dataset(spec, "val")[0].target.label_map


def test_lossy_and_deep_label_maps(tmp_path):
    spec = writers.map_set(tmp_path / "jpeg", ending=".jpg")
    with pytest.raises(UserError, match="JPEG and WebP change class indices"):
        open_dataset(spec, "val")
    spec = writers.map_set(tmp_path / "deep", convert=lambda m: m.astype(np.uint16) * 256)
    with pytest.raises(UserError, match="divide=256"):
        open_dataset(spec, "val")[0]
    writers.map_set(tmp_path / "ade")
    (tmp_path / "ade/index_ade20k.pkl").write_bytes(b"")
    with pytest.raises(UserError, match=r"full ADE20K, .*; use its benchmark"):
        open_dataset(f"maps:{tmp_path / 'ade'}", "val")


def coloured(labels):
    return np.array([*writers.COLOURS, *[(9, 9, 9)] * 253], np.uint8)[labels]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nground,0,0,0\nbus,128,0,0\ncar,0,128,0\n"),
        ("label_colors.txt", "0 0 0\tground\n128 0 0\tbus\n0 128 0\tcar\n"),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nground:0,0,0::\nbus:128,0,0::\ncar:0,128,0::",
        ),
    ],
)
def test_colours(tmp_path, name, text):
    writers.map_set(tmp_path, convert=lambda m: coloured(np.where(m == 255, 0, m)))
    (tmp_path / "classes.txt").unlink()
    write_text(tmp_path / name, text)
    table = dict(zip(writers.MAP_CLASSES, writers.COLOURS, strict=True))
    specs = [
        f"maps:{tmp_path}",
        f"maps(colors='{name}'):{tmp_path}",
        f"maps(colors={table}):{tmp_path}",
    ]
    found = [open_dataset(spec, "val") for spec in specs]
    expected = np.where(writers.label_map("a.png") == 255, 0, writers.label_map("a.png"))
    for dataset in found:
        assert dataset.info.classes == writers.MAP_CLASSES
        np.testing.assert_array_equal(dataset[0].target.label_map, expected)
    assert len({dataset.info.fingerprint for dataset in found}) == 1
    save(tmp_path / "labels/val/a.png", coloured(writers.label_map("a.png")))
    with pytest.raises(UserError, match=r"120 pixels have others, such as \(9, 9, 9\)"):
        found[0][0]


def test_label_ids_and_train_ids_of_cityscapes(tmp_path):
    table = np.full(34, 255, np.uint8)
    for train, label in enumerate([7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]):
        table[label] = train
    ids = open_dataset(writers.cityscapes(tmp_path / "ids", "labelIds", lambda m: m), "val")
    train = open_dataset(
        writers.cityscapes(tmp_path / "train", "labelTrainIds", lambda m: table[m]), "val"
    )
    np.testing.assert_array_equal(ids[0].target.label_map, train[0].target.label_map)
    assert ids.info.fingerprint == train.info.fingerprint
    assert (len(ids.info.classes), ids.info.classes[13]) == (19, "car")
    assert "19 train ids" in ids.info.notes[0]
    assert detect_formats(tmp_path / "ids") == [f"cityscapes:{tmp_path / 'ids'}"]
    assert cityscapes.label_id_table()[24] == 11


def test_label_files_beside_their_images_are_recognised(tmp_path):
    for name in writers.NAMES[:2]:
        stem = name.removesuffix(".png")
        save(tmp_path / f"val/{stem}.jpg", writers.photo(name))
        save(tmp_path / f"val/{stem}_mask.png", writers.label_map(name))
    spec = check_dataset(str(tmp_path)).spec
    assert spec == f"maps(images='{{split}}', labels='{{split}}', suffix='_mask.png'):{tmp_path}"
    assert len(open_dataset(spec, "val")) == 2


def test_layouts_of_maps_are_tried_in_a_fixed_order(tmp_path):
    for folder in ("images/val", "labels/val", "val/images", "val/labels"):
        (tmp_path / folder).mkdir(parents=True)
    found = list(maps.known_layouts(tmp_path))
    assert found[0] == maps.MapLayout("images/{split}", "labels/{split}")
    assert maps.MapLayout("{split}/images", "{split}/labels") in found


# ---- classes


def test_tables_that_are_wrong(tmp_path):
    spec = writers.csv_list(tmp_path)
    for text, sentence in (
        ("a,b\n1,2", "the columns file and label"),
        ("file,label\nx.png", "a file and a label in row 2"),
        ("file,label\nx.png,car", "which the table lists, but it is not there"),
        ("file,label\n../x.png,car", "no '..'"),
        ("file,label\ncar/a.png,car\ncar/a.png,car", "each file once"),
        ("file,label", "Expected"),
    ):
        write_text(tmp_path / "val.csv", text)
        with pytest.raises(UserError, match=sentence):
            open_dataset(spec, "val")


def test_numbers_as_labels(tmp_path):
    spec = writers.csv_list(tmp_path)
    write_text(tmp_path / "val.csv", "file,label\ncar/a.png,10\nbus/b.png,9\n")
    assert open_dataset(spec, "val").info.classes == ("9", "10")
    write_text(tmp_path / "classes.txt", "\n".join("abcdefghijk"))
    dataset = open_dataset(spec, "val")
    assert [dataset[n].target.label for n in range(2)] == [9, 10]
    assert Pillow.open(dataset.items[0].image).size == SIZE[::-1]


# ---- Mapillary Vistas


def test_classes_of_vistas_are_those_that_are_evaluated(tmp_path):
    spec = writers.vistas()(tmp_path)
    info = open_dataset(spec, "val").info
    assert info.classes == writers.MAP_CLASSES
    assert "classes are those of config.json; ignored: unlabeled" in info.notes
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd")  # a list of one's own comes first
    assert open_dataset(spec, "val").info.classes == ("a", "b", "c", "d")


def test_versions_of_vistas_are_not_guessed(tmp_path):
    writers.vistas("v1.2")(tmp_path)
    spec = writers.vistas("v2.0")(tmp_path)
    with pytest.raises(UserError, match=r"choose one: maps\(labels='{split}/v1.2/labels'\):"):
        open_dataset(spec, "val")
    chosen = spec.replace("maps", "maps(labels='{split}/v1.2/labels')")
    assert "classes are those of config_v1.2.json" in " ".join(
        open_dataset(chosen, "val").info.notes
    )


@pytest.mark.parametrize(
    "labels",
    [
        [{"name": "a", "color": [1, 2]}],
        [{"color": [1, 2, 3]}],
        [{"name": "a", "color": [1, 2, 300]}],
        [{"name": str(n), "color": [0, 0, 0]} for n in range(256)],
    ],
)
def test_damaged_classes_of_vistas(labels, tmp_path):
    spec = writers.vistas()(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(UserError, match=r"Expected at most 255 labels with name and color"):
        open_dataset(spec, "val")


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": 3}', '{"labels": ["a"]}', "{}"])
def test_other_files_of_that_name_are_not_of_vistas(text, tmp_path):
    spec = writers.map_set(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "config.json").write_text(text)
    assert open_dataset(spec, "val").info.classes == ("class 0", "class 1", "class 2")
