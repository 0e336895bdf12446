"""The commands about corruptions alone: corrupt, explain, conformance."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillrobust.cli.completion import names_of
from stillrobust.errors import UserError
from stillrobust.runtime.progress import progress_display

if TYPE_CHECKING:
    from stillrobust.tools.corrupt_folder import SetPlan

commands = typer.Typer()

# Options of every command that corrupts images.
Mode = Annotated[str, typer.Option(help="fast, or exact: the reference's draws.")]
Regime = Annotated[
    str, typer.Option(help="Severity table: imagenet, imagenet-c, cifar or tiny-imagenet.")
]
ChannelOrder = Annotated[str, typer.Option(help="rgb, or bgr as some detection tools had it.")]


@commands.command("corrupt")
def corrupt_(
    source: Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")],
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder for OUT/CORRUPTION/SEVERITY/...; the sheet's PNG with --contact-sheet."
        ),
    ],
    corruption: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("corruptions"),
            help="Names or files of your own with commas; 'all' is the 15.",
        ),
    ] = "all",
    severity: Annotated[str, typer.Option(help="1 to 5, with commas, or 'all'.")] = "all",
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; 0, the default: one a core.")
    ] = None,
    mode: Mode = "fast",
    regime: Regime = "imagenet",
    channel_order: ChannelOrder = "rgb",
    image_format: Annotated[
        str, typer.Option("--format", help="png, or jpeg, which loses and is recorded.")
    ] = "png",
    quality: Annotated[int | None, typer.Option(help="Of jpeg, 1 to 100.")] = None,
    contact_sheet: Annotated[
        bool,
        typer.Option("--contact-sheet", help="Only draw one photo under them, as one picture."),
    ] = False,
) -> None:
    """Corrupt a photo or a whole folder, on all cores; a second call does only what is missing.

    Example: stillrobust corrupt photos corrupted --corruption fog,snow --severity 3
    """
    from stillrobust.corruptions import SEVERITIES
    from stillrobust.tools.corrupt_folder import SetPlan, corrupt_set

    names = tuple("common" if name.strip() == "all" else name for name in corruption.split(","))
    levels = SEVERITIES if severity == "all" else severities_of(severity)
    plan = SetPlan(names, levels, seed, mode, regime, channel_order, image_format, quality)
    if contact_sheet:
        _contact_sheet(source, out, plan)
        return
    with progress_display() as listen:
        summary = corrupt_set(source, out, plan, workers, listen)
    for title, notes in (("read with a remark", summary.remarks), ("skipped", summary.skipped)):
        for name, reason in sorted(notes.items()):
            typer.echo(f"{title}: {name}: {reason}")
    typer.echo(
        f"{summary.written} files written, {summary.already} were there; {len(summary.skipped)}"
        f" photos skipped: {out}"
    )
    if summary.skipped:
        raise typer.Exit(3)


def _contact_sheet(source: Path, out: Path, plan: "SetPlan") -> None:
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
    write_whole({out: encode_png(contact_sheet(read_image(source), plan, source.name))})
    typer.echo(f"Contact sheet: {out}")


@commands.command()
def conformance(
    library: Annotated[
        str,
        typer.Argument(
            help="imagecorruptions, imagecorruptions_imaug, corrupt_tta or module:function."
        ),
    ],
    python: Annotated[
        Path | None, typer.Option(help="The interpreter that has it; by default this one.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All five severities, not only 1, 3 and 5.")
    ] = False,
    corruptions: Annotated[
        str, typer.Option(help="'all' for the 19, or names with commas.")
    ] = "all",
    json: Annotated[
        Path | None, typer.Option(help="Also write everything to this file, with versions.")
    ] = None,
) -> None:
    """Score an installed library of ImageNet-C corruptions against ours; status 0 if every
    corruption conforms, else 1.

    Example: stillrobust conformance imagecorruptions --python other/bin/python --full
    """
    from json import dumps

    from stillrobust.corruptions import CORRUPTIONS, SEVERITIES
    from stillrobust.storage.files import write_whole
    from stillrobust.tools.conformance import FEWER_SEVERITIES, table
    from stillrobust.tools.conformance import conformance as compare

    if json and not json.parent.is_dir():
        raise UserError(
            f"Expected a folder for {json.name} at {json.parent}, but there is none; make it first"
        )
    names = (
        tuple(CORRUPTIONS)
        if corruptions == "all"
        else tuple(name.strip() for name in corruptions.split(","))
    )
    levels = SEVERITIES if full else FEWER_SEVERITIES
    with progress_display() as listen:
        found = compare(
            library,
            python,
            levels,
            names,
            lambda done, total, text: listen("compare", done, total, text),
        )
    typer.echo(table(found))
    if json:
        write_whole({json: (dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n").encode()})
    if not found.passed:
        raise typer.Exit(1)


def severities_of(text: str) -> tuple[int, ...]:
    """``"1,3"`` -> (1, 3)."""
    try:
        return tuple(int(severity) for severity in text.split(","))
    except ValueError:
        raise UserError(
            f"Expected severities such as 1,2,3, but got {text!r}; give numbers from 1 to 5"
        ) from None


@commands.command()
def explain(
    source: Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")],
    first: Annotated[
        str,
        typer.Option(
            help="A protocol: KEY=VALUE with commas; keys mode, regime, channel_order, seed."
        ),
    ],
    second: Annotated[str, typer.Option(help="The other one.")],
    severity: Annotated[str, typer.Option(help="1 to 5, with commas.")] = "3",
    photos: Annotated[
        int, typer.Option(help="At most so many photos, evenly spaced over the folder.")
    ] = 20,
) -> None:
    """Show what two protocols change, per corruption, in grey levels on a sample of your photos.

    Example: stillrobust explain photos --first channel_order=rgb --second channel_order=bgr
    """
    from stillrobust.tools.protocol_difference import differences, protocol_of, sample_of, text_of

    one, other = protocol_of(first), protocol_of(second)
    images = sample_of(source, photos)
    typer.echo(f"{len(images)} photos, severity {severity}: {first} against {second}")
    typer.echo(text_of(differences(images, one, other, severities_of(severity))))
