"""The commands on studies: list, plan, run, status, report, numbers, explain."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillrobust.cli.completion import studies
from stillrobust.cli.early_page import EarlyPage
from stillrobust.cli.output import print_text
from stillrobust.cli.report import finish, show_paper
from stillrobust.errors import UserError
from stillrobust.runtime.progress import progress_display

if TYPE_CHECKING:
    from stillrobust.study import Selection, Site

commands = typer.Typer(
    no_args_is_help=True,
    help="Plan, run and report studies: the paper's, or your own.",
)

FAILED = 3  # exit status if some jobs failed

Names = Annotated[
    list[str] | None,
    typer.Argument(
        autocompletion=studies,
        help="Study files, or names of shipped studies (default: all of the paper's).",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of models and results (default: 'studies', or 'miniature')."),
]
Protocol = Annotated[
    str | None,
    typer.Option(help="paper (severity 1) or benchmark (1 to 5); default: the study's first."),
]
DataRoot = Annotated[
    Path, typer.Option(help="Folder of the datasets: coco/, ade20k/, cifar10/, ...")
]
Data = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FORMAT:PATH of a dataset that is elsewhere, repeatable."),
]
Small = Annotated[
    bool,
    typer.Option("--miniature", help="Use small data, small models and few steps."),
]

Seeds = Annotated[
    int, typer.Option(help="Train with N seeds: the study's seed and the following ones.")
]


def _site(selection: "Selection", out: Path | None, root: Path, data: list[str] | None) -> "Site":
    from stillrobust.study import Site
    from stillrobust.study.state import resolve_data

    named = {name: spec for study in selection.studies for name, spec in study.data.items()}
    folder = out or Path("miniature" if selection.miniature else "studies")
    return Site(folder.resolve(), resolve_data(named, root, data or []))


@commands.command("list")
def list_command() -> None:
    """List the shipped studies with their titles.

    Example: stillrobust study list
    """
    from stillrobust.study.files import read_study, shipped

    for name, path in shipped().items():
        print_text(f"{name}: {read_study(path).title}")


@commands.command()
def run(
    studies: Names = None,
    out: Out = None,
    protocol: Protocol = None,
    data_root: DataRoot = Path("data"),
    data: Data = None,
    miniature: Small = False,
    seeds: Seeds = 1,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Maximum number of workers (default: one per GPU, or per core)."),
    ] = None,
    share_corrupted: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Share corrupted images between models, up to SIZE (20GB)."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Run on local, ray or slurm; see docs/how_to/cluster.md.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Ray: HOST:PORT of the cluster (default: this machine's)."),
    ] = None,
    gpu_fraction: Annotated[
        float | None, typer.Option(help="Ray: part of a GPU for each worker.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "Slurm: an option of sbatch for each worker, KEY=VALUE, repeatable: partition=gpu."
            )
        ),
    ] = None,
) -> None:
    """Run studies and write their report.

    Finished cells are skipped, so the command resumes.

    Example: stillrobust study run table1 --miniature --out small

    Example: stillrobust study run table1 --engine ray --gpu-fraction 0.5 --out /shared/table1
    """
    from stillrobust.data.image_cache import parse_size
    from stillrobust.study import select

    share = parse_size(share_corrupted) if share_corrupted else 0
    sbatch = dict(_parse_option(one) for one in slurm) if slurm else None
    options: dict[str, Any] = {}
    for flag, owner, name, value in (
        ("--address", "ray", "address", address),
        ("--gpu-fraction", "ray", "gpu_fraction", gpu_fraction),
        ("--slurm", "slurm", "sbatch", sbatch),
    ):
        if value is not None and engine != owner:
            raise UserError(
                f"Expected {flag} with --engine {owner} only, but the engine is {engine}; leave"
                " one of them out"
            )
        options |= {name: value} if value is not None else {}
    selection = select(studies or [], protocol, miniature, seeds)
    site = _site(selection, out, data_root, data)
    run_and_report(selection, site, workers, share, engine, options)


def _parse_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(
            f"Expected KEY=VALUE after --slurm, but got {text!r}; write it as partition=gpu"
        )
    return name.strip(), value.strip()


def run_and_report(
    selection: "Selection",
    site: "Site",
    workers: int | None,
    shared_bytes: int = 0,
    engine: str = "local",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Run studies with a progress display, print failures and write the report.

    Args:
        selection: The studies.
        site: Their folder and data.
        workers: The highest number of workers; ``None`` or 0 for as many as there is room for.
        shared_bytes: Size of the folder of shared corrupted images; 0 for none.
        engine: The engine.
        options: Its options.

    Raises:
        typer.Exit: With status 3, if jobs failed.
    """
    from stillrobust.storage.files import require_folder
    from stillrobust.study.execute import run_study
    from stillrobust.study.state import failures_text

    with progress_display(site.progress) as display:
        page = EarlyPage(site.results, site.out, display.print_line)

        def on_workload(*workload: Any) -> None:
            display.start(*workload)
            page.start(*workload)

        def on_end(name: str, reason: str) -> None:
            display.finish(name, reason)
            page.job_ended(name, reason)

        failures = run_study(
            selection,
            site,
            workers or 0,
            message=display.print_line,
            progress=display,
            on_end=on_end,
            on_workload=on_workload,
            shared_bytes=shared_bytes,
            engine=engine,
            options=options or {},
        )
        page.wait()
    require_folder(site.out)
    if not failures or (site.results / "runs").is_dir():  # something was evaluated
        _write_report(selection, site)
    for line in failures_text({failure.job: failure.reason for failure in failures}):
        print_text(line, err=True)
    if failures:
        again = shlex.join(["stillrobust", *sys.argv[1:]])
        print_text(
            f"{len(failures)} jobs failed or could not start; finished work is kept. Run the same"
            f" command again: {again}",
            err=True,
        )
        raise typer.Exit(FAILED)


def _write_report(selection: "Selection", site: "Site") -> None:
    """Write the page; for studies with panels, also their tables and figures with the paper's
    values.
    """
    from stillrobust.study import run_states

    finish(site.results, site.out)
    states = run_states(selection.runs, selection.protocol, site)
    has_panels = any(study.panels for study in selection.studies)
    if has_panels and any(state.finished for state in states):
        name = selection.protocol_name or None
        show_paper(site.results, site.out / "paper", name, selection.names)


@commands.command()
def plan(
    studies: Names = None,
    out: Out = None,
    protocol: Protocol = None,
    data_root: DataRoot = Path("data"),
    data: Data = None,
    miniature: Small = False,
    seeds: Seeds = 1,
    runs: Annotated[bool, typer.Option("--runs", help="List every run.")] = False,
) -> None:
    """Print what is finished, what is missing, and the cost.

    Missing weights and data are listed, and so are wrong runs, such as one with an unknown recipe.
    Wrong runs make the exit status 3.

    Example: stillrobust study plan table1 figure2 --protocol benchmark
    """
    from stillrobust.study import select

    selection = select(studies or [], protocol, miniature, seeds)
    from stillrobust.study.plan import plan_study, plan_text

    found = plan_study(selection, _site(selection, out, data_root, data))
    print_text(plan_text(found, runs))
    if found.faults:
        raise typer.Exit(FAILED)


@commands.command()
def status(
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("studies"),
) -> None:
    """Print the progress of a study, from any terminal.

    Example: stillrobust study status --out small
    """
    from stillrobust.study import Site, load_selection, run_states
    from stillrobust.study.state import read_failures, status_text

    selection, site = load_selection(out), Site(out.resolve())
    states = run_states(selection.runs, selection.protocol, site)
    print_text(status_text(site, states, read_failures(site)))


@commands.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("studies"),
) -> None:
    """Write the report of a study.

    It has the page, tables and figures beside the paper's values, and the verdicts on claims.

    Example: stillrobust study report --out small
    """
    from stillrobust.study import Site, load_selection

    _write_report(load_selection(out), Site(out.resolve()))


@commands.command()
def numbers(
    file: Annotated[Path, typer.Argument(help="A .csv or .json file to write.")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("studies"),
) -> None:
    """Write every number of a study to a file.

    Each number has its key, run and protocol.

    Example: stillrobust study numbers numbers.csv --out small
    """
    from stillrobust.report.export import export_measurements
    from stillrobust.study import Site, load_selection

    print_text(
        f"{export_measurements(load_selection(out), Site(out.resolve()), file)} numbers: {file}"
    )


@commands.command()
def explain(
    first: Annotated[
        str,
        typer.Argument(help="Key of a cell, its first digits, or RUN/CORRUPTION/SEVERITY."),
    ],
    second: Annotated[str, typer.Argument(help="Key of another cell.")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("studies"),
) -> None:
    """Explain why two numbers differ.

    The differences of their protocols are printed.

    Example: stillrobust study explain 3f2a91bc 77e01d45 --out small
    """
    from stillrobust.storage.store import Store
    from stillrobust.study import Site
    from stillrobust.study.explain import compare_cells, explanation_text

    print_text(explanation_text(compare_cells(Store(Site(out).results), first, second)))
