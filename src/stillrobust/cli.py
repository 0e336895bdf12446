"""The command line: it parses, builds one dataclass, calls one library function. Heavy imports happen inside."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from stillrobust.errors import UserError

STOPPED = 130  # the exit status of a program that Ctrl-C ended: 128 + SIGINT
LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Are these models still robust? Transfer ImageNet backbones, measure them under image corruptions, report.",
)


def main() -> None:
    """The entry point: a user's mistake is one sentence and status 2, Ctrl-C is 130."""
    try:
        app()
    except UserError as error:
        print(f"stillrobust: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ending:
        if ending.code == STOPPED:  # typer ends so, without a word, on Ctrl-C
            print("stillrobust: stopped; what was finished is kept, run the same command again to go on", file=sys.stderr)
        raise
    except OSError as error:
        print(f"stillrobust: {error.strerror or error} ({error.filename}); what was finished is kept", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _progress(total_cells: int = 0) -> Iterator[Any]:
    """``listen(name, done, total, text)`` and ``listen.say(text)``: bars with rate and time left on a terminal, lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total_cells)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        yield _Bars(bars, total_cells)


class _Bars:
    """One bar for all cells, one for each job at work."""

    def __init__(self, bars: Any, total_cells: int) -> None:
        self.bars, self.say = bars, bars.print
        self.overall = bars.add_task("all cells", total=total_cells, text="") if total_cells else None
        self.shown: dict[str, Any] = {}
        self.counted: dict[str, int] = {}

    def __call__(self, name: str, done: int, total: int, text: str) -> None:
        if name not in self.shown:
            self.shown[name] = self.bars.add_task(name[:60], total=total, text=text)
        self.bars.update(self.shown[name], completed=done, total=total, text=text, visible=done < total)
        if self.overall is not None and name.startswith("evaluate"):
            self.bars.advance(self.overall, done - self.counted.get(name, 0))
            self.counted[name] = done


class _Lines:
    """A line every ten seconds, for logs."""

    def __init__(self, total_cells: int) -> None:
        self.total_cells = total_cells
        self.cells: dict[str, int] = {}
        self.first: dict[str, tuple[float, int]] = {}
        self.last = 0.0

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def __call__(self, name: str, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        start, begun = self.first.setdefault(name, (now, done))
        if name.startswith("evaluate"):
            self.cells[name] = done
        if now - self.last < LINE_SECONDS:
            return
        self.last = now
        rate = (done - begun) / max(now - start, 1e-9)
        left = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if rate > 0 else ""
        overall = f" [{sum(self.cells.values())}/{self.total_cells} cells]" if self.total_cells else ""
        self.say(f"{name}: {done}/{total} {text}{left}{overall}")


def _finish(results: Path, out: Path) -> None:
    from stillrobust.report import report, summarize, text_table
    from stillrobust.store import Store

    page = report(results, out)
    typer.echo(text_table(summarize(Store(results)).rows))
    typer.echo(f"\nReport: {page}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, models, results and the report.")] = Path("demo"),
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core.")] = None,
) -> None:
    """Three tasks, both modes of transfer, 15 corruptions at 5 severities, on generated scenes; minutes on two cores."""
    from stillrobust.study import STUDIES

    study_file = STUDIES / "demo.yaml"
    _run_study(study_file, out, workers)


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    out: Annotated[Path, typer.Option(help="Folder for models, results and the report.")],
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core.")] = None,
) -> None:
    """Do what is missing of a study, then report."""
    _run_study(file, out, workers)


def _run_study(file: Path, out: Path, workers: int | None) -> None:
    from stillrobust.study import cells_of, read_study, run_study

    plan = read_study(file)
    with _progress(cells_of(plan)) as listen:
        results = run_study(plan, out, workers, listen.say, listen)
    _finish(results, out)


@app.command()
def train(
    data: Annotated[str, typer.Option(help="coco:PATH (detection), maps:PATH (segmentation) or folders:PATH (classes).")],
    backbone: Annotated[str, typer.Option(help="efficientnet_lite0, any timm name, or NAME(weights='FILE').")],
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    transfer: Annotated[str, typer.Option(help="fixed_feature or full_network.")] = "full_network",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 8,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the head.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Seed of the head, the order and the augmentation.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the task, KEY=VALUE (YAML), repeatable.")
    ] = None,
) -> None:
    """Transfer a backbone to your data.

    Example: stillrobust train --data coco:mydata --backbone efficientnet_lite0 --out runs/mine --steps 2000
    """
    from stillrobust.data import open_dataset
    from stillrobust.training import Plan, Recipe
    from stillrobust.training import train as run_training

    dataset = open_dataset(data, "train", training=True)
    recipe = Recipe(steps=steps, batch_size=batch_size, lr=lr, seed=seed)
    plan = Plan(dataset.info.task, backbone, transfer, recipe, _settings(settings or []))  # type: ignore[arg-type]
    with _progress() as listen:
        folder = run_training(plan, dataset, out, lambda done, total, text: listen("train", done, total, text))
    typer.echo(f"Finished model: {folder}")


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"Expected --set KEY=VALUE, but got {pair!r}")
        values[key.strip()] = yaml.safe_load(value)
    return values


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished model.")],
    data: Annotated[str, typer.Option(help="coco:PATH, maps:PATH or folders:PATH; its val split is used.")],
    out: Annotated[Path, typer.Option(help="Folder for results and the report.")],
    corruptions: Annotated[str, typer.Option(help="'common' for the 15, or names with commas.")] = "common",
    severities: Annotated[str, typer.Option(help="Severities with commas.")] = "1,2,3,4,5",
    images: Annotated[int | None, typer.Option(help="Only so many images, evenly spaced over the set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the corruptions.")] = 0,
    regime: Annotated[str, typer.Option(help="Severity table: imagenet, imagenet-c, cifar or tiny-imagenet.")] = "imagenet",
    mode: Annotated[str, typer.Option(help="fast, or exact: the reference's draws.")] = "fast",
    channel_order: Annotated[str, typer.Option(help="rgb, or bgr as some detection tools had it.")] = "rgb",
) -> None:
    """Measure a finished model under corruptions; a second call does only what is missing.

    Example: stillrobust evaluate runs/mine --data coco:mydata --out results
    """
    from stillrobust.corruptions import COMMON
    from stillrobust.data import open_dataset
    from stillrobust.evaluation import Protocol
    from stillrobust.evaluation import evaluate as run_evaluation

    names = tuple(COMMON) if corruptions == "common" else tuple(name.strip() for name in corruptions.split(","))
    protocol = Protocol(
        names, _severities(severities), seed=seed, images=images, mode=mode, regime=regime, channel_order=channel_order
    )
    dataset = open_dataset(data, "val")
    with _progress() as listen:
        run_evaluation(
            run,
            dataset,
            out / "results",
            protocol,
            progress=lambda done, total, text: listen("cells", done, total, text),
        )
    _finish(out / "results", out)


@app.command("corrupt")
def corrupt_(
    source: Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")],
    out: Annotated[Path, typer.Argument(help="Folder for OUT/CORRUPTION/SEVERITY/...; the sheet's PNG with --contact-sheet.")],
    corruption: Annotated[str, typer.Option(help="Names with commas, or 'all' for the 15 common ones.")] = "all",
    severity: Annotated[str, typer.Option(help="1 to 5, with commas, or 'all'.")] = "all",
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core.")] = None,
    mode: Annotated[str, typer.Option(help="fast, or exact: the reference's draws.")] = "fast",
    regime: Annotated[str, typer.Option(help="Severity table: imagenet, imagenet-c, cifar or tiny-imagenet.")] = "imagenet",
    channel_order: Annotated[str, typer.Option(help="rgb, or bgr as some detection tools had it.")] = "rgb",
    format: Annotated[str, typer.Option(help="png, or jpeg, which loses and is recorded.")] = "png",
    quality: Annotated[int | None, typer.Option(help="Of jpeg, 1 to 100.")] = None,
    contact_sheet: Annotated[bool, typer.Option("--contact-sheet", help="Only draw the 15 x 5 grid of one photo.")] = False,
) -> None:
    """Corrupt a photo or a whole folder, on all cores; a second call does only what is missing.

    Example: stillrobust corrupt photos corrupted --corruption fog,snow --severity 3
    """
    from stillrobust.corrupted_sets import SetPlan, corrupt_set
    from stillrobust.corruptions import COMMON, SEVERITIES

    if contact_sheet:
        _contact_sheet(source, out, seed)
        return
    names = tuple(COMMON) if corruption == "all" else tuple(name.strip() for name in corruption.split(","))
    levels = SEVERITIES if severity == "all" else _severities(severity)
    plan = SetPlan(names, levels, seed, mode, regime, channel_order, format, quality)
    with _progress() as listen:
        summary = corrupt_set(source, out, plan, workers, listen)
    for title, notes in (("read with a remark", summary.remarks), ("skipped", summary.skipped)):
        for name, reason in sorted(notes.items()):
            typer.echo(f"{title}: {name}: {reason}")
    typer.echo(f"{summary.written} files written, {summary.already} were there; {len(summary.skipped)} photos skipped: {out}")
    if summary.skipped:
        raise typer.Exit(3)


def _contact_sheet(source: Path, out: Path, seed: int) -> None:
    from stillrobust.data.reading import read_image, write_image
    from stillrobust.report.contact_sheet import contact_sheet

    if not source.is_file() or out.suffix.lower() != ".png":
        raise UserError(f"Expected a photo and a .png for --contact-sheet, but got {source} and {out}")
    write_image(out, contact_sheet(read_image(source), seed, source.name))
    typer.echo(f"Contact sheet: {out}")


def _severities(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(severity) for severity in text.split(","))
    except ValueError:
        raise UserError(f"Expected severities such as 1,2,3, but got {text!r}") from None


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="The folder 'results' of a study or an evaluation.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, table.csv and measurements.csv.")],
) -> None:
    """Write the table and the page from results that are there."""
    if not (results / "runs").is_dir():
        raise UserError(f"Expected a folder of results (with runs/ and cells/) at {results}, but there is none")
    _finish(results, out)


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="backbones, corruptions, tasks or formats.")]) -> None:
    """List the components of a family."""
    from stillrobust.names import lookup

    def backbones() -> list[str]:
        from stillrobust.backbones import CHECKPOINTS

        rows = [f"{c.name}: ImageNet-1k top-1 {100 * c.top1:.1f} %, package {c.package}" for c in CHECKPOINTS.values()]
        return [*rows, "... and every model of timm by its name"]

    def corruptions() -> list[str]:
        from stillrobust.corruptions import CORRUPTIONS

        return list(CORRUPTIONS)

    def tasks() -> list[str]:
        from stillrobust.tasks import TASKS

        return list(TASKS)

    def formats() -> list[str]:
        from stillrobust.data import FORMATS

        return list(FORMATS)

    families = {"backbones": backbones, "corruptions": corruptions, "tasks": tasks, "formats": formats}
    typer.echo("\n".join(lookup("family", what, families)()))


@app.command()
def conformance(
    library: Annotated[str, typer.Argument(help="imagecorruptions, imagecorruptions_imaug, corrupt_tta or module:function.")],
    python: Annotated[Path | None, typer.Option(help="The interpreter that has it; by default this one.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All five severities, not only 1, 3 and 5.")] = False,
    corruptions: Annotated[str, typer.Option(help="'all' for the 19, or names with commas.")] = "all",
    json: Annotated[Path | None, typer.Option(help="Also write everything to this file, with versions.")] = None,
) -> None:
    """Score an installed library of ImageNet-C corruptions against ours; status 0 if every corruption conforms, else 1.

    Example: stillrobust conformance imagecorruptions --python other/bin/python --full
    """
    from json import dumps

    from stillrobust.conformance import FEWER_SEVERITIES, table
    from stillrobust.conformance import conformance as compare
    from stillrobust.corruptions import CORRUPTIONS, SEVERITIES
    from stillrobust.store import write_whole

    if json and not json.parent.is_dir():
        raise UserError(f"Expected a folder for {json.name} at {json.parent}, but there is none; make it first")
    names = tuple(CORRUPTIONS) if corruptions == "all" else tuple(name.strip() for name in corruptions.split(","))
    levels = SEVERITIES if full else FEWER_SEVERITIES
    with _progress() as listen:
        found = compare(library, python, levels, names, lambda done, total, text: listen("compare", done, total, text))
    typer.echo(table(found))
    if json:
        write_whole({json: (dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n").encode()})
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Say what this machine has, and compile the corruption kernels ahead of the first use."""
    import torch

    from stillrobust import corruptions

    typer.echo(f"torch {torch.__version__}, {os.cpu_count()} cores, {torch.cuda.device_count()} GPUs")
    typer.echo(f"frost textures: {corruptions.protocol()}")
    corruptions.warm_up()
    typer.echo("corruption kernels: compiled")


if __name__ == "__main__":
    main()
