"""SemSegBench's table of mIoU at severity 3: a line per architecture, backbone, dataset and crop.

mIoU is in percent and dataset-level, as in mmsegmentation and here. The corruptions are those of
``imagecorruptions`` at severity 3. The columns of ACDC (photographs in adverse weather), the mean
and the minimum (``gam``) are not cells and are skipped; the mean is compared with the cells. The
crop is that of the training and identifies the model.
"""

from pathlib import Path
from statistics import fmean

from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, Place
from stillrobust.importers.csv_tables import read_csv_rows
from stillrobust.importers.tables import UNKNOWN, ImportedTable, score
from stillrobust.metrics import METRICS

ABOUT = ("architecture", "backbone", "type_backbone", "dataset", "crop_size")
PREFIX, CLEAN_COLUMN = "mIoU_2d_", "mIoU_clean"
MEAN = f"{PREFIX}mean"
NOT_TAKEN = {
    f"{PREFIX}gam",
    "mIoU_acdc",
    *(f"mIoU_acdc_{name}" for name in ("fog", "snow", "rain", "night")),
}
LEVEL = 3
# val images
DATASETS = {
    "ade20k": ("ADE20K", 2000),
    "cityscapes": ("Cityscapes", 500),
    "voc": ("Pascal VOC 2012", 1449),
}
ROUNDING = 0.011  # of a mean in percent, printed with two digits
PROTOCOL = {
    "task": "segmentation",
    "data": UNKNOWN,
    "stage": UNKNOWN,
    "ground_truth": "not warped",
    "metric_version": METRICS["segmentation"].version,
    "seed": UNKNOWN,
    "regime": "imagenet",
    "channel_order": UNKNOWN,
    "draws": "imagecorruptions, another for every run",
    "frost_textures": "imagecorruptions",
    "corruptions_version": UNKNOWN,
}


def read(path: Path, model: str, dataset: str) -> list[ImportedTable]:
    """Read a run per line.

    Args:
        path: The table.
        model: ``architecture/backbone`` of the only lines to read (default: all).
        dataset: Dataset of the only lines to read (default: all).

    Raises:
        UserError: If the table is invalid or has no such line.
    """
    headings, *lines = read_csv_rows(path)
    corrupted = {
        heading: heading.removeprefix(PREFIX)
        for heading in headings
        if heading.removeprefix(PREFIX) in COMMON
    }
    missing = [name for name in (*ABOUT, CLEAN_COLUMN) if name not in headings]
    strange = [
        name
        for name in headings
        if name not in (*ABOUT, CLEAN_COLUMN, MEAN, *NOT_TAKEN, *corrupted)
    ]
    if missing or strange or len(set(headings)) < len(headings) or not corrupted:
        fault = (
            f"lacks {', '.join(missing)}"
            if missing
            else f"has {', '.join(strange) or 'repeated columns or no corruption'}"
        )
        raise UserError(
            f"Expected the columns of SemSegBench in {path}, but it {fault}; this layout is not"
            " known, so get the file as its makers publish it"
        )
    tables = [_table(dict(zip(headings, line, strict=True)), corrupted, path) for line in lines]
    tables = [
        one
        for one in tables
        if (not model or one.backbone == model) and (not dataset or one.dataset == dataset)
    ]
    if not tables:
        raise UserError(
            f"Expected a line of {model or 'any model'} on {dataset or 'any data'} in {path}, but"
            " there is none; check --model and --dataset"
        )
    return tables


def _table(line: dict[str, str], corrupted: dict[str, str], path: Path) -> ImportedTable:
    name = "{architecture}/{backbone}".format(**line)
    about = f"{name} on {line['dataset']} in {path}"
    if line["dataset"] not in DATASETS:
        raise UserError(
            f"Expected one of {', '.join(DATASETS)} for {about}; this dataset is not known, so name"
            " one that is with --dataset"
        )
    cells: dict[Place, dict[str, float]] = {}
    for heading, place in {
        CLEAN_COLUMN: CLEAN,
        **{column: (short, LEVEL) for column, short in corrupted.items()},
    }.items():
        if line[heading].strip():  # an empty field is a missing cell
            cells[place] = {"miou": score(line[heading], f"{heading} of {about}", 100)}
    scores = [100 * one["miou"] for place, one in cells.items() if place != CLEAN]
    notes: tuple[str, ...] = ()
    if line.get(MEAN, "").strip() and len(scores) == len(COMMON):
        printed = 100 * score(line[MEAN], f"{MEAN} of {about}", 100)
        if abs(printed - fmean(scores)) > ROUNDING:
            notes = (
                f"the table prints a mean of {printed:.2f}, its cells have {fmean(scores):.2f}",
            )
    title, images = DATASETS[line["dataset"]]
    run = f"{name} {line['dataset']} {line['crop_size']}"
    return ImportedTable(
        run,
        "segmentation",
        title,
        name,
        "external",
        images,
        cells,
        {**PROTOCOL, "images": images},
        notes,
    )
