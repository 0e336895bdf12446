"""The format ``huggingface``: datasets of the library ``datasets``, from disk or from Python.

Nothing is downloaded. Images are decoded from their stored bytes by ``stillrobust.data.decoding``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from stillrobust.data.bad_images import record_fault
from stillrobust.data.formats import Format
from stillrobust.data.formats.detection import DETECTION_OPTIONS, build_detection
from stillrobust.data.formats.huggingface_columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    MASK_COLUMNS,
    OBJECT_COLUMNS,
    StoredImage,
    class_numbers,
    find_column,
    image_ids,
    is_image,
    object_fields,
    read_column,
    stored_images,
)
from stillrobust.data.formats.image_lists import LabelledImage, build_image_list
from stillrobust.data.formats.image_sizes import read_sizes
from stillrobust.data.formats.map_dataset import MapItem, build_map_dataset
from stillrobust.data.formats.maps import MAP_OPTIONS, build_reader, find_colours, require_lossless
from stillrobust.data.formats.options import (
    CLASSES,
    SPLIT,
    OpenOptions,
    Option,
    open_usable,
    require_options,
    text_option,
)
from stillrobust.data.formats.splits import UNNAMED, choose_split, splits_check
from stillrobust.data.formats.table_builder import TableBuilder
from stillrobust.data.reading import visible_files
from stillrobust.errors import BadImageError, UserError
from stillrobust.extras import require_extra
from stillrobust.samples import Dataset
from stillrobust.untrusted import parse_json, read_regular_file

SHARD = re.compile(r"^(.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
"""Names of parquet files without suffix, such as ``train-00000-of-00004``."""
BOX_FIELDS = ("bbox", "bboxes", "box", "boxes")
CATEGORY_FIELDS = ("category", "categories", "label", "labels", "category_id")
CROWD_FIELDS = ("iscrowd", "is_crowd")
OUTLINE_FIELDS = ("segmentation", "segmentations", "mask", "masks")
BOX_FORMATS = ("xywh", "xyxy")
UNREADABLE = (OSError, ValueError, KeyError, TypeError)  # pyarrow's errors are ValueErrors

Splits = Callable[[], Sequence[Any]]
"""Opens all splits, for classes that only the data lists."""


def list_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the splits of a saved dataset or a folder of parquet files."""
    listed = root / "dataset_dict.json"
    if listed.is_file():
        try:
            found = parse_json(read_regular_file(listed))["splits"]
        except UNREADABLE:
            raise _damaged(root) from None
        return [str(name) for name in found]
    return [UNNAMED] if _is_saved(root) else list(parquet_files(root))


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def parquet_files(root: Path) -> dict[str, list[Path]]:
    """Split -> its parquet files: ``train-00000-of-00004``, ``train/*`` or ``train``.

    Raises:
        UserError: If the files of a split are in several folders, as those of several
            configurations are.
    """
    found: dict[str, list[Path]] = {}
    for path in visible_files(root) if root.is_dir() else ():
        if path.suffix == ".parquet":
            shard = SHARD.match(path.stem)
            inner = path.parent != root and path.parent.name != "data"
            name = shard[1] if shard else path.parent.name if inner else path.stem
            found.setdefault(name, []).append(path)
    for name, paths in found.items():
        folders = sorted({path.parent for path in paths})
        if len(folders) > 1:
            raise UserError(
                f"Expected one dataset in {root}, but the split {name!r} is in {len(folders)}"
                f" folders; name one of them, such as huggingface:{folders[0]}"
            )
    return found


def load_split(root: Path, split: str) -> Any:
    """Open a split as a ``datasets.Dataset``. Its arrow files stay on the disk.

    Args:
        root: Folder of the dataset.
        split: One of ``list_splits``.

    Returns:
        The dataset.

    Raises:
        UserError: If its files are damaged.
    """
    import datasets

    folder = root if split == UNNAMED else root / split
    try:
        with _no_progress_bars(datasets):
            if _is_saved(folder):
                return datasets.load_from_disk(str(folder))
            return datasets.Dataset.from_parquet([str(p) for p in parquet_files(root)[split]])
    except (*UNREADABLE, datasets.exceptions.DatasetsError) as error:
        raise _damaged(folder, error) from None


@contextmanager
def _no_progress_bars(datasets: Any) -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _damaged(folder: Path, error: Exception | None = None) -> UserError:
    said = " ".join(str(error or "its list of splits is damaged").split())
    return UserError(
        f"Expected a dataset in {folder} that save_to_disk of the package datasets wrote, but got:"
        f" {said:.160}; save it again"
    )


def how_to_save(root: Path) -> str:
    """How to get a dataset of the hub, since only commands named fetch open a connection."""
    name = root.as_posix() if re.fullmatch(r"[\w.-]+/[\w.-]+", root.as_posix()) else "OWNER/NAME"
    folder = name.rpartition("/")[2]
    return (
        f"`stillrobust data fetch huggingface:{name} {folder}` saves a dataset of the hub to a"
        f" folder, and huggingface:{folder} reads it"
    )


def open_huggingface(root: Path, split: str, options: OpenOptions) -> Dataset:
    """Open a split of a saved dataset."""
    if not root.is_dir():
        raise UserError(
            f"Expected a folder with a saved dataset at {root}, but there is none;"
            f" {how_to_save(root)}"
        )
    require_extra("huggingface")
    splits = list_splits(root, options)
    chosen = choose_split(split, splits, root, options)
    dataset = load_split(root, chosen)
    name = root.name if chosen == UNNAMED else f"{root.name}/{chosen}"

    def every() -> list[Any]:
        return [dataset if name == chosen else load_split(root, name) for name in splits]

    return build_dataset(dataset, name, every, options)


def huggingface_dataset(
    dataset: Any, name: str = "Hugging Face", training: bool = False, **options: Any
) -> Dataset:
    """Wrap a ``datasets.Dataset``, so that ``evaluate`` and ``train`` accept it.

    Args:
        dataset: One split, with a column of images and one of labels, objects or label maps.
        name: Name in reports.
        training: Drop images without objects to learn from (see ``DetectionDataset``).
        **options: Options of the format ``huggingface``, such as ``box_format="xywh"``.

    Returns:
        The dataset. ``info.notes`` says what was assumed.

    Raises:
        UserError: If the object or its columns cannot be used.
    """
    require_extra("huggingface")
    import datasets

    if not isinstance(dataset, datasets.Dataset):
        kind = type(dataset).__name__
        advice = (
            f"choose a split, such as dataset[{next(iter(dataset), 'train')!r}]"
            if isinstance(dataset, Mapping)
            else "streams cannot be read in any order, so load it without streaming"
        )
        raise UserError(f"Expected a datasets.Dataset, but got {kind}; {advice}")
    known = [option for option in HUGGINGFACE.options if option is not SPLIT]
    require_options("huggingface", known, options, "huggingface_dataset(...)")
    opened = OpenOptions(training, None, options, options, "huggingface", Path(name))
    return open_usable(
        lambda applied: build_dataset(dataset, name, lambda: [dataset], applied), opened
    )


def build_dataset(dataset: Any, name: str, every: Splits, options: OpenOptions) -> Dataset:
    """Read the columns of a ``datasets.Dataset``; the first kind of ground truth decides the task.

    Args:
        dataset: One split.
        name: Name in reports.
        every: Opens all splits.
        options: Columns and how they are read.

    Returns:
        A dataset of the task.

    Raises:
        UserError: If columns are missing or cannot be read.
    """
    column = find_column(dataset, "image", IMAGE_COLUMNS, is_image, options)
    objects = find_column(dataset, "objects", OBJECT_COLUMNS, object_fields, options)
    mask = find_column(dataset, "label", MASK_COLUMNS, is_image, options)
    label = find_column(dataset, "label", LABEL_COLUMNS, lambda f: hasattr(f, "dtype"), options)
    if options.value("label") and not options.value("objects"):
        objects = None
    truth = objects or mask or label
    if column is None or truth is None:
        listed = ", ".join(f"{key} ({type(f).__name__})" for key, f in dataset.features.items())
        raise UserError(
            f"Expected a column of images, and one of labels, label maps or objects, in {name}, but"
            f" got {listed:.200}; name them, such as huggingface(image='photo', label='class')"
        )
    others = [found for found in (mask, label) if found not in (truth, None)]
    if others:
        options.notes.say(
            f"the ground truth is the column {truth!r}; label={others[0]!r} chooses another"
        )
    images = stored_images(dataset, column, name)
    ids = image_ids(dataset, images, options)
    if not ids:
        raise UserError(f"Expected images in {name}, but it has no rows; choose another split")
    if objects:
        return _open_objects(dataset, objects, name, every, images, ids, options)
    if mask:
        return _open_maps(dataset, mask, name, every, images, ids, options)
    found = read_column(dataset, truth)
    names = getattr(dataset.features[truth], "names", None) or options.value("names")
    values = found if names else chain(*(read_column(one, truth) for one in every()))
    classes, labels = class_numbers(dataset.features[truth], found, list(values), truth, options)
    items = [LabelledImage(*item) for item in zip(ids, images, labels, strict=True)]
    return build_image_list(name, classes, items, options)


def _open_maps(
    dataset: Any,
    column: str,
    name: str,
    every: Splits,
    images: Sequence[StoredImage],
    ids: Sequence[str],
    options: OpenOptions,
) -> Dataset:
    """A dataset of label maps; classes have the names of the option, or numbers."""
    maps = stored_images(dataset, column, name)
    for one in maps:
        require_lossless(one.name, Path(name))
    names, colours = options.value("names"), find_colours(options.path, options, search=False)
    known = names or colours or options.value("foreground")
    others = maps if known else [m for one in every() for m in stored_images(one, column, name)]
    classes, reader = build_reader(
        name, list(names) if names else None, colours, maps, others, options
    )
    items = [MapItem(*item) for item in zip(ids, images, maps, strict=True)]
    return build_map_dataset(name, classes, items, reader, options)


def _open_objects(
    dataset: Any,
    column: str,
    name: str,
    every: Splits,
    images: Sequence[StoredImage],
    ids: Sequence[str],
    options: OpenOptions,
) -> Dataset:
    """A dataset of boxes."""
    fields = object_fields(dataset.features[column])
    box, kind = _box_column(fields, column, options)
    category = _first(CATEGORY_FIELDS, fields)
    if category is None:
        raise UserError(
            f"Expected the class of each object as one of {', '.join(CATEGORY_FIELDS)} in the"
            f" column {column!r}, but got {', '.join(fields)}; rename it"
        )
    outlines = _first(OUTLINE_FIELDS, fields)
    if outlines:
        options.notes.say(f"outlines in {column}.{outlines} are not read; boxes only")
    rows = [_object_rows(cell, fields) for cell in read_column(dataset, column)]
    named = getattr(fields[category], "names", None) or options.value("names")
    cells = (cell for one in every() for cell in read_column(one, column)) if not named else ()
    values = [one[category] for objects in rows for one in objects]
    listed = [one[category] for cell in cells for one in _object_rows(cell, fields)]
    classes, labels = class_numbers(
        fields[category], values, listed, f"{column}.{category}", options
    )
    label = iter(labels)
    by_row = [[(one, next(label)) for one in objects] for objects in rows]
    builder = TableBuilder(options.notes)
    sizes = read_sizes(images, options.reading.exif)
    crowd, area = _first(CROWD_FIELDS, fields), "area" if "area" in fields else None
    for row, size in enumerate(sizes):
        if isinstance(size, BadImageError):
            record_fault(options.faults, ids[row], size)
            continue
        builder.add_image(ids[row], size)
        for one, number in by_row[row]:
            where = f"row {row}, column {column!r} of {name}"
            builder.add_object(
                _corners(one[box], kind, where),
                number,
                where,
                crowd=bool(crowd and one[crowd]),
                area=one[area] if area else None,
            )
    files = dict(zip(ids, images, strict=True))
    return build_detection(
        name, classes, builder.build(len(classes)), Path(), f"column {column!r}", options, files
    )


def _first(names: Sequence[str], existing: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in existing), None)


def _object_rows(cell: Any, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of an image, one dict each."""
    if cell is None:
        return []
    if isinstance(cell, list):
        return [{name: one.get(name) for name in fields} for one in cell]
    columns = [cell[name] for name in fields if cell[name] is not None]
    count = max(map(len, columns), default=0)
    return [
        {name: (cell[name] or [None] * count)[index] for name in fields} for index in range(count)
    ]


def _box_column(fields: Mapping[str, Any], column: str, options: OpenOptions) -> tuple[str, str]:
    """The field of boxes and its format: from the option, else from the end of its name.

    Raises:
        UserError: If there is no such field, or nothing says the format.
    """
    given = options.value("box_format")
    for stem in BOX_FIELDS:
        for kind in BOX_FORMATS:
            if f"{stem}_{kind}" in fields:
                return f"{stem}_{kind}", given or kind
    box = _first(BOX_FIELDS, fields)
    if box is None:
        raise UserError(
            f"Expected boxes as one of {', '.join(BOX_FIELDS)} in the column {column!r}, but got"
            f" {', '.join(fields)}; rename the field"
        )
    if given is None:
        first, second = (
            options.spec(box_format=kind) if options.path.is_dir() else f"box_format={kind!r}"
            for kind in BOX_FORMATS
        )
        raise UserError(
            f"Expected box_format, because nothing in {column}.{box} says what its four numbers"
            f" are; write {first} if they are x, y, width, height, or {second} if they are two"
            " corners"
        )
    return box, given


def _corners(box: Any, kind: str, where: str) -> Sequence[float]:
    """left, top, right, bottom."""
    if not isinstance(box, list | tuple) or len(box) != 4 or None in box:
        raise UserError(
            f"Expected boxes of four numbers in {where}, but got {box!r:.60}; correct it"
        )
    first, second, third, fourth = map(float, box)
    if kind == "xyxy":
        return first, second, third, fourth
    return first, second, first + third, second + fourth


def detect_huggingface(root: Path) -> dict[str, Any] | None:
    """Recognise a saved dataset and a folder of parquet files."""
    if (root / "dataset_dict.json").is_file() or _is_saved(root):
        return {}
    for folder in (root, root / "data"):
        if folder.is_dir() and any(folder.glob("*.parquet")):
            return {}
    return {} if any(root.glob("*/*.parquet")) else None


HUGGINGFACE = Format(
    None,
    open_huggingface,
    splits_check(open_huggingface, list_splits),
    detect_huggingface,
    (
        *DETECTION_OPTIONS,
        text_option("image", "a column of images", "Read images from this column."),
        text_option("label", "a column", "Read labels or label maps from this column."),
        text_option("objects", "a column of boxes and classes", "Read objects from this column."),
        Option(
            "box_format",
            "'xywh' or 'xyxy'",
            lambda value: value in BOX_FORMATS,
            "Read boxes as x, y, width, height or as two corners.",
        ),
        text_option("ids", "a column", "Read image ids from this column."),
        Option("names", CLASSES.expected, CLASSES.accepts, "Give numbered classes these names."),
        *MAP_OPTIONS,
    ),
    absent=how_to_save,
)
