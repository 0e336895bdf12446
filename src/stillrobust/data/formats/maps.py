"""The format ``maps``: a folder of images and a folder of label maps with the same names."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillrobust.data.formats import Format
from stillrobust.data.formats.class_names import (
    COLOUR_FILES,
    is_colour_table,
    read_class_colours,
    read_names,
    require_colours,
)
from stillrobust.data.formats.label_files import (
    LABEL_SUFFIXES,
    LOSSY_SUFFIXES,
    Colour,
    LabelReader,
    choose_classes,
    foreground_table,
    index_table,
    is_colour_map,
    reduced_table,
)
from stillrobust.data.formats.map_dataset import (
    MapDataset,
    build_map_dataset,
    is_binary,
    label_files_by_stem,
    pair_files,
    stored_values,
)
from stillrobust.data.formats.options import (
    CLASSES,
    IMAGES,
    LABELS,
    LEAVE_OUT_BAD,
    READING_OPTIONS,
    SPLIT,
    SUFFIX,
    OpenOptions,
    Option,
    flag_option,
)
from stillrobust.data.formats.splits import (
    SPLIT_NAMES,
    UNNAMED,
    choose_split,
    inside_root,
    splits_check,
)
from stillrobust.data.formats.vistas import VERSION, VistasClasses, find_vistas_classes
from stillrobust.data.reading import ImageFile, image_files, subfolders, visible_files
from stillrobust.errors import UserError
from stillrobust.samples import IGNORE

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "JPEGImages")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "annotations", "ann_dir", "gt")
BESIDE = ("_labels", "_masks", "annot")
"""Ends of label folders beside image folders, as in CamVid: ``val_labels``, ``valannot``."""
ENDINGS = ("_mask", "_label", "_labels", "_gt", "_seg", "_L", "_labelIds", "_labelTrainIds")
"""Ends of the names of label files beside images: ``x.jpg``, ``x_mask.png``."""
FULL_ADE20K = "index_ade20k.pkl"
"""Telltale file of the full ADE20K."""


@dataclass(frozen=True)
class MapLayout:
    """Where images and label maps are. ``{split}`` stands for the split.

    Attributes:
        images: Folder of the images, below the root.
        labels: Folder of the label maps.
    """

    images: str
    labels: str

    def splits(self, root: Path) -> list[str]:
        """Splits with images and label maps; without label maps if no split has any."""
        if "{split}" not in self.images:
            return [UNNAMED] if (root / self.images).is_dir() else []
        before, _, after = self.images.partition("{split}")
        there = [
            name
            for name in subfolders(root / before)
            if (root / before / f"{name}{after}").is_dir()
        ]
        both = [name for name in there if (root / self.labels.replace("{split}", name)).is_dir()]
        return both or there


def find_layout(root: Path, options: OpenOptions) -> MapLayout:
    """The layout of a folder: from the options, else the first known one that is there."""
    images, labels = options.value("images"), options.value("labels")
    known = list(dict.fromkeys(known_layouts(root)))
    beside = next((one for one in known if one.labels == labels), None)
    if beside and not images:
        return beside
    if images or labels:
        return MapLayout(
            _with_split(root, images, IMAGE_FOLDERS), _with_split(root, labels, LABEL_FOLDERS)
        )
    versions = [one.labels for one in known if VERSION.search(one.labels)]
    if len(versions) > 1:  # of Mapillary Vistas: other classes
        specs = " or ".join(options.spec(labels=place) for place in versions)
        raise UserError(
            f"Expected label maps of one version in {root}, but found {' and '.join(versions)};"
            f" choose one: {specs}"
        )
    found = next(iter(known), MapLayout("images/{split}", "labels/{split}"))
    if found != MapLayout("images/{split}", "labels/{split}"):
        options.notes.say(f"images are read from {found.images}/, label maps from {found.labels}/")
    return found


def known_layouts(root: Path) -> Iterable[MapLayout]:
    """The known layouts that a folder may have, the most usual first."""
    top = subfolders(root)
    image_folders = [name for name in IMAGE_FOLDERS if name in top]
    label_folders = [name for name in LABEL_FOLDERS if name in top]
    for images in image_folders:
        for labels in label_folders:
            shared = set(subfolders(root / images)) & set(subfolders(root / labels))
            if _holds(root / images) and _holds(root / labels):
                yield MapLayout(images, labels)
            elif shared:
                yield MapLayout(f"{images}/{{split}}", f"{labels}/{{split}}")
    for split in top:
        inner = subfolders(root / split)
        for version in (name for name in inner if VERSION.fullmatch(name)):
            if "images" in inner and (root / split / version / "labels").is_dir():
                yield MapLayout("{split}/images", f"{{split}}/{version}/labels")
        for images in (name for name in IMAGE_FOLDERS if name in inner):
            for labels in (name for name in LABEL_FOLDERS if name in inner):
                yield MapLayout(f"{{split}}/{images}", f"{{split}}/{labels}")
        for ending in BESIDE:
            if f"{split}{ending}" in top:
                yield MapLayout("{split}", f"{{split}}{ending}")


def _holds(folder: Path) -> bool:
    """Whether a folder directly holds a file of labels or an image."""
    suffixes = (*LABEL_SUFFIXES, *LOSSY_SUFFIXES)
    return any(path.suffix.lower() in suffixes for path in folder.iterdir())


def _with_split(root: Path, given: str | None, usual: Sequence[str]) -> str:
    """The place that an option names, with ``{split}`` if it has folders for splits."""
    place = given or next((name for name in usual if (root / name).is_dir()), usual[0])
    if "{split}" in place or not set(SPLIT_NAMES).intersection(subfolders(root / place)):
        return place
    return f"{place}/{{split}}"


def map_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the splits, sorted."""
    return find_layout(root, options.renewed()).splits(root)


def open_maps(root: Path, split: str, options: OpenOptions) -> MapDataset:
    """Open a split of a folder of images and label maps."""
    require_readable(root)
    layout = find_layout(root, options)
    splits = layout.splits(root)
    chosen = choose_split(split, splits, root, options)
    images, labels = (inside_root(root, place, chosen) for place in (layout.images, layout.labels))
    suffix = find_suffix(images, labels, options)
    items = pair_files(images, labels, options.faults, suffix)
    label_paths = [path for item in items if isinstance(path := item.labels, Path)]
    every = [
        path
        for name in splits
        if (folder := inside_root(root, layout.labels, name)).is_dir()
        for path in label_files_by_stem(folder, suffix).values()
    ]
    vistas = find_vistas_classes(root, layout.labels)
    if vistas is None or os.path.lexists(root / "classes.txt"):
        classes, reader = choose_reader(root, label_paths, every, options)
    else:
        classes, reader = choose_vistas_reader(vistas, root, label_paths, options)
    name = root.name if chosen == UNNAMED else f"{root.name}/{chosen}"
    return build_map_dataset(
        name, classes, items, reader, options, None if images == labels else images
    )


def require_readable(root: Path) -> None:
    """Refuse the full ADE20K, whose label maps hold more classes than a label map can here."""
    if (root / FULL_ADE20K).exists():
        raise UserError(
            f"Expected label maps of at most {IGNORE} classes in {root}, but {FULL_ADE20K} belongs"
            " to the full ADE20K, with thousands of classes in two channels; use its benchmark of"
            " 150 classes as ade20k:PATH"
        )


def find_suffix(images: Path, labels: Path, options: OpenOptions) -> str | None:
    """The end of the label files: the option, or one that fits every image.

    Args:
        images: Folder of the images.
        labels: Folder of the label maps.
        options: ``suffix`` and ``notes`` apply.

    Returns:
        The suffix; ``None`` if label files have the names of their images.

    Raises:
        UserError: If all label files are in a lossy format.
    """
    given = options.value("suffix")
    if given is not None:
        require_lossless(str(given), labels)
        return str(given)
    stems = [path.relative_to(images).with_suffix("").as_posix() for path in image_files(images)]
    exact = {} if images == labels else label_files_by_stem(labels)
    if any(stem in exact for stem in stems):
        return None
    names = {path.relative_to(labels).as_posix() for path in visible_files(labels)}
    ends = sorted(
        {name[len(stem) :] for stem in stems[:1] for name in names if name.startswith(stem)}
    )
    lossless = [end for end in ends if Path(f"x{end}").suffix.lower() in LABEL_SUFFIXES]
    if images == labels:
        lossless = [end for end in lossless if Path(end).stem in ENDINGS]
        stems = [stem for stem in stems if not any(f"{stem}.png".endswith(end) for end in lossless)]
    fitting = [end for end in lossless if all(f"{stem}{end}" in names for stem in stems)]
    if len(fitting) == 1:
        options.notes.say(f"label maps are the files that end with {fitting[0]!r}")
        return fitting[0]
    if images != labels and not exact and names:
        for name in sorted(names):
            require_lossless(name, labels)
    return None


def require_lossless(name: str, folder: Path) -> None:
    """Refuse label maps in a format that changes values."""
    if name.lower().endswith(LOSSY_SUFFIXES):
        raise UserError(
            f"Expected label maps in PNG, TIFF, BMP or npy files in {folder}, but got {name!r}:"
            " JPEG and WebP change class indices at every border; export them again as PNG"
        )


def choose_reader(
    root: Path, paths: Sequence[ImageFile], every: Sequence[ImageFile], options: OpenOptions
) -> tuple[list[str], LabelReader]:
    """The classes of a dataset, and how its label maps are read.

    Args:
        root: Folder of the dataset.
        paths: Label files of the split.
        every: Label files of all splits, which are scanned for the highest index if no file names
            the classes.
        options: ``colors``, ``foreground``, ``reduce_zero_label`` and ``divide`` apply.

    Returns:
        The class names and the reader.

    Raises:
        UserError: As in ``build_reader``.
    """
    listed = root / "classes.txt"
    names = read_names(listed) if os.path.lexists(listed) else None
    colours = find_colours(root, options, names is None)
    return build_reader(str(root), names, colours, paths, every, options)


def choose_vistas_reader(
    listed: VistasClasses, root: Path, paths: Sequence[ImageFile], options: OpenOptions
) -> tuple[list[str], LabelReader]:
    """The classes of a configuration of Mapillary Vistas, and how its label maps are read.

    Args:
        listed: The configuration.
        root: Folder of the dataset.
        paths: Label files of the split: of indices or of colours.
        options: As in ``build_reader``.

    Returns:
        The names of the classes that are scored, and the reader.
    """
    ignored = [name for n, name in enumerate(listed.names) if n not in listed.scored]
    options.notes.say(
        f"classes are those of {listed.file}; ignored: {', '.join(ignored) or 'none'}"
    )
    coloured = bool(paths) and not options.value("divide") and is_colour_map(paths[0])
    colours = dict(zip(listed.names, listed.colours, strict=True)) if coloured else {}
    names, reader = build_reader(str(root), list(listed.names), colours, paths, paths, options)
    kept = [names.index(listed.names[n]) for n in listed.scored]
    return [names[n] for n in kept], replace(reader, table=choose_classes(reader.table, kept))


def build_reader(
    where: str,
    names: list[str] | None,
    colours: Mapping[str, Colour],
    paths: Sequence[ImageFile],
    every: Sequence[ImageFile],
    options: OpenOptions,
) -> tuple[list[str], LabelReader]:
    """The classes of a dataset and its reader, from what is known of them.

    Args:
        where: The dataset, for messages.
        names: Class names; ``None`` numbers them.
        colours: Class name -> colour; empty for label maps of indices.
        paths: Label files of the split.
        every: Label files of all splits.
        options: ``foreground``, ``reduce_zero_label`` and ``divide`` apply.

    Returns:
        The class names and the reader.

    Raises:
        UserError: If options contradict, or masks hold 0 and 255 only.
    """
    ways = [name for name in ("colors", "foreground", "reduce_zero_label") if options.value(name)]
    if len(ways) > 1:
        raise UserError(f"Expected one of {' and '.join(ways)}, but got both; leave one out")
    foreground, divisor = options.value("foreground"), options.value("divide", 1)
    if colours:
        return list(colours), LabelReader(index_table(len(colours)), tuple(colours.values()))
    if foreground is not None:
        names = names or ["background", "foreground"]
        if len(names) != 2:
            raise UserError(
                f"Expected two class names in {where} for foreground={foreground}, but got"
                f" {len(names)}; list background and foreground"
            )
        return names, LabelReader(foreground_table(foreground), divisor=divisor)
    stored = LabelReader(tuple(range(256)), divisor=divisor)
    if (names is None or len(names) > 1) and is_binary(paths, stored):
        raise UserError(
            f"Expected class indices in the label maps of {where}, but they hold 0 and {IGNORE}"
            f" only, and {IGNORE} means ignored here; {options.spec(foreground=255)} reads"
            f" {IGNORE} as the foreground, and a classes.txt with one name keeps it ignored"
        )
    reduce = bool(options.value("reduce_zero_label"))
    names = names or number_classes(where, every, stored, reduce)
    table = reduced_table(len(names)) if reduce else index_table(len(names))
    return names, LabelReader(table, divisor=divisor)


def find_colours(root: Path, options: OpenOptions, search: bool) -> dict[str, Colour]:
    """The colours of classes: from the option, else from a telltale file; empty without."""
    given = options.value("colors")
    if isinstance(given, str):
        return read_class_colours(inside_root(root, given, ""))
    if given:
        colours = {str(name): (int(r), int(g), int(b)) for name, (r, g, b) in given.items()}
        return require_colours(colours, "colors=")
    for name in COLOUR_FILES if search else ():
        if (root / name).is_file():
            options.notes.say(f"colours are read as the classes that {name} lists")
            return read_class_colours(root / name)
    return {}


def number_classes(
    where: str, paths: Sequence[ImageFile], stored: LabelReader, reduce: bool
) -> list[str]:
    """Numbered names up to the highest label of all splits, so that all splits have the same."""
    highest = max((value for value in stored_values(paths, stored) if value != IGNORE), default=-1)
    count = highest if reduce else highest + 1
    if count < 1:
        raise UserError(
            f"Expected label maps with at least one class in {where}, but found none; add some"
        )
    return [f"class {number}" for number in range(count)]


def detect_maps(root: Path) -> dict[str, Any] | None:
    """Recognise folders of images and label maps, and label files beside images."""
    if (root / FULL_ADE20K).exists():
        return {}
    for layout in known_layouts(root):
        for split in layout.splits(root):
            folder = root / layout.labels.replace("{split}", split)
            if any(path.suffix.lower() in LABEL_SUFFIXES for path in visible_files(folder)):
                return {}
    splits = [name for name in subfolders(root) if name in SPLIT_NAMES]
    for place in ("{split}",) if splits else (".",):
        folder = root / place.replace("{split}", splits[0] if splits else "")
        options = OpenOptions(path=root)
        try:
            suffix = find_suffix(folder, folder, options)
        except UserError:
            continue
        if suffix:
            return {"images": place, "labels": place, "suffix": suffix}
    return None


MAP_OPTIONS: tuple[Option, ...] = (
    flag_option("reduce_zero_label", "Ignore label 0 and read label k as class k - 1."),
    Option(
        "foreground",
        "a whole number 1 to 255",
        lambda value: type(value) is int and 1 <= value <= 255,
        "Read this label as class 1 and label 0 as class 0.",
    ),
    Option(
        "colors",
        "a file below PATH such as 'class_dict.csv', or {'name': (r, g, b), ...}",
        lambda value: isinstance(value, str) or is_colour_table(value),
        "Read colour-coded label maps.",
    ),
    Option(
        "divide",
        "a whole number 2 to 1000",
        lambda value: type(value) is int and 2 <= value <= 1000,
        "Divide labels of 16 bits first; 256 leaves out instance ids in the lower byte.",
    ),
)
"""How the values of label maps become classes."""

MAPS = Format(
    "segmentation",
    open_maps,
    splits_check(open_maps, map_splits),
    detect_maps,
    (
        SPLIT,
        CLASSES,
        IMAGES,
        LABELS,
        SUFFIX,
        LEAVE_OUT_BAD,
        *READING_OPTIONS,
        *MAP_OPTIONS,
    ),
)
