"""The commands on corruptions: corrupt; corruptions list, conformance, difference."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillrobust.cli.completion import names_of
from stillrobust.cli.output import print_text
from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.runtime.progress import progress_display

if TYPE_CHECKING:
    from stillrobust.tools.corrupt_folder import CorruptionPlan
    from stillrobust.tools.folder_job import FolderSummary

corrupt_command = typer.Typer()
commands = typer.Typer(no_args_is_help=True, help="List corruptions, and compare implementations.")

# Options of every command that corrupts images.
Draws = Annotated[
    str, typer.Option(help="fast, or exact for the pixels of the reference implementation.")
]
Regime = Annotated[
    str, typer.Option(help="Severity table: imagenet, imagenet-c, cifar or tiny-imagenet.")
]
ChannelOrder = Annotated[
    str, typer.Option(help="Channel order of the image that is corrupted: rgb or bgr.")
]
# Options of the commands that evaluate cells or export them.
Corruptions = Annotated[
    str,
    typer.Option(
        autocompletion=names_of("corruptions"),
        help="Names or Python files with commas; 'common' is the 15, 'c-bar' ten others.",
    ),
]
Severities = Annotated[str, typer.Option(help="Severities, separated by commas.")]
Seed = Annotated[int, typer.Option(help="Seed of the corruptions.")]
DatasetRegime = Annotated[str | None, typer.Option(help="Severity table (default: the dataset's).")]
WarpTruth = Annotated[
    bool,
    typer.Option(
        "--warp-truth", help="Move boxes, masks and label maps with corruptions that move pixels."
    ),
]
CHANCE_PICTURE = "first_predictions.png"
AcceptChance = Annotated[
    bool,
    typer.Option(
        "--accept-chance", help="Go on if the clean score is no better than chance (default: stop)."
    ),
]
Scale = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH", help="For images of more than 8 bits: the values that become 0 and 255."
    ),
]


@corrupt_command.command("corrupt")
def corrupt_(
    source: Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")],
    out: Annotated[
        Path,
        typer.Argument(help="Output folder, or the PNG to write with --contact-sheet."),
    ],
    corruption: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("corruptions"),
            help="Names or Python files, separated by commas; 'all' for the 15.",
        ),
    ] = "all",
    severity: Annotated[
        str, typer.Option(help="Severities from 1 to 5, separated by commas, or 'all'.")
    ] = "all",
    seed: Annotated[int, typer.Option(help="Seed of the random draws.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes (default: one for each core).")
    ] = None,
    draws: Draws = "fast",
    regime: Regime = "imagenet",
    channel_order: ChannelOrder = "rgb",
    image_format: Annotated[str, typer.Option("--format", help="png (lossless) or jpeg.")] = "png",
    quality: Annotated[int | None, typer.Option(help="JPEG quality, 1 to 100.")] = None,
    scale: Scale = None,
    contact_sheet: Annotated[
        bool,
        typer.Option(
            "--contact-sheet",
            help="Write one PNG that shows a photo under every corruption and severity.",
        ),
    ] = False,
) -> None:
    """Corrupt a photo or a folder of photos.

    All cores are used. Finished files are skipped.

    Example: stillrobust corrupt photos corrupted --corruption fog,snow --severity 3
    """
    from stillrobust.corruptions import SEVERITIES
    from stillrobust.tools.corrupt_folder import CorruptionPlan, make_corrupted_folder

    names = tuple("common" if name.strip() == "all" else name for name in corruption.split(","))
    levels = SEVERITIES if severity == "all" else parse_severities(severity)
    plan = CorruptionPlan(
        names, levels, seed, draws, regime, channel_order, image_format, quality, scale
    )
    if contact_sheet:
        _contact_sheet(source, out, plan)
        return
    with progress_display() as listen:
        summary = make_corrupted_folder(source, out, plan, workers, listen)
    print_folder_summary(summary, out)


def print_folder_summary(summary: "FolderSummary", out: Path) -> None:
    """Print what a folder tool did; exit with status 3 if an image was skipped."""
    for title, notes in (("note", summary.remarks), ("skipped", summary.skipped)):
        for name, reason in sorted(notes.items()):
            print_text(f"{title}: {name}: {reason}")
    print_text(
        f"{format_count(summary.written, 'file')} written, {summary.already} existed already,"
        f" {format_count(len(summary.skipped), 'image')} skipped: {out}"
    )
    if summary.skipped:
        raise typer.Exit(3)


def _contact_sheet(source: Path, out: Path, plan: "CorruptionPlan") -> None:
    from stillrobust.data.reading import encode_png, read_image
    from stillrobust.storage.files import write_whole
    from stillrobust.tools.contact_sheet import contact_sheet

    if not source.is_file() or out.suffix.lower() != ".png":
        raise UserError(
            f"Expected a photo and a .png for --contact-sheet, but got {source} and {out}; give"
            " both"
        )
    if plan.format != "png":
        raise UserError(
            "Expected no --format and --quality with --contact-sheet, whose picture is a .png;"
            " leave them out"
        )
    write_whole(
        {out: encode_png(contact_sheet(read_image(source, plan.reading), plan, source.name))}
    )
    print_text(f"Contact sheet: {out}")


@commands.command("list")
def list_command() -> None:
    """List the corruptions: 15 common ones, then the extra ones.

    Example: stillrobust corruptions list
    """
    from stillrobust.corruptions import CORRUPTIONS

    print_text("\n".join(CORRUPTIONS))


@commands.command()
def conformance(
    library: Annotated[
        str,
        typer.Argument(
            help="imagecorruptions, imagecorruptions_imaug, corrupt_tta or module:function."
        ),
    ],
    python: Annotated[
        Path | None,
        typer.Option(help="Python interpreter that has the library (default: this one)."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Compare all five severities (default: 1, 3 and 5).")
    ] = False,
    corruptions: Annotated[str, typer.Option(help="Names, separated by commas, or 'all'.")] = "all",
    json: Annotated[
        Path | None, typer.Option(help="Also write all results and versions to this file.")
    ] = None,
) -> None:
    """Compare another library's corruptions with the reference.

    The exit status is 1 if one differs.

    Example: stillrobust corruptions conformance imagecorruptions --python other/bin/python --full
    """
    from json import dumps

    from stillrobust.corruptions import REFERENCE, SEVERITIES
    from stillrobust.storage.files import write_whole
    from stillrobust.tools.conformance import FEWER_SEVERITIES, compare_library, format_table

    if json and not json.parent.is_dir():
        raise UserError(
            f"Expected a folder for {json.name} at {json.parent}, but there is none; make it first"
        )
    names = (
        REFERENCE
        if corruptions == "all"
        else tuple(name.strip() for name in corruptions.split(","))
    )
    levels = SEVERITIES if full else FEWER_SEVERITIES
    with progress_display() as listen:
        found = compare_library(
            library,
            python,
            levels,
            names,
            lambda done, total, text: listen("compare", done, total, text),
        )
    print_text(format_table(found))
    if json:
        write_whole({json: (dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n").encode()})
    if not found.passed:
        raise typer.Exit(1)


def parse_severities(text: str) -> tuple[int, ...]:
    """Parse severities such as ``"1,3"``."""
    try:
        return tuple(int(severity) for severity in text.split(","))
    except ValueError:
        raise UserError(
            f"Expected severities such as 1,2,3, but got {text!r}; give numbers from 1 to 5"
        ) from None


@commands.command()
def difference(
    source: Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")],
    first: Annotated[
        str,
        typer.Option(
            help="KEY=VALUE, separated by commas. Keys: draws, regime, channel_order, seed."
        ),
    ],
    second: Annotated[str, typer.Option(help="The protocol to compare with.")],
    severity: Annotated[
        str, typer.Option(help="Severities from 1 to 5, separated by commas.")
    ] = "3",
    photos: Annotated[
        int, typer.Option(help="Maximum number of photos, evenly spaced over the folder.")
    ] = 20,
) -> None:
    """Measure how two protocols change the pixels of photos.

    The result is the mean difference in grey levels for each corruption.

    Example: stillrobust corruptions difference photos --first draws=exact --second draws=fast
    """
    from stillrobust.tools.protocol_difference import (
        compare_protocols,
        format_differences,
        parse_protocol,
        read_sample,
    )

    one, other = parse_protocol(first), parse_protocol(second)
    images = read_sample(source, photos)
    print_text(f"{len(images)} photos, severity {severity}: {first} against {second}")
    rows = compare_protocols(images, one, other, parse_severities(severity))
    print_text(format_differences(rows))
