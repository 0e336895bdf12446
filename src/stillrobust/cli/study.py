"""The commands about studies: plan, run, status, report, explain, export."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillrobust.cli.completion import studies
from stillrobust.cli.report import finish, show_paper
from stillrobust.errors import UserError
from stillrobust.runtime.progress import progress

if TYPE_CHECKING:
    from stillrobust.study import Selection, Site

commands = typer.Typer()
study = typer.Typer(
    no_args_is_help=True,
    help=(
        "Whole studies: the paper's tables and figures, or your own file of axes. See"
        " docs/studies.md."
    ),
)
commands.add_typer(study, name="study")

FAILED = 3  # the exit status where something could not be done and the rest was

Names = Annotated[
    list[str] | None,
    typer.Argument(
        autocompletion=studies,
        help="Study files, or names of shipped ones; none: all of the paper's.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of models and results; by default 'studies', or 'miniature'."),
]
Protocol = Annotated[
    str | None,
    typer.Option(help="paper (severity 1) or benchmark (1 to 5); by default the file's first."),
]
DataRoot = Annotated[
    Path, typer.Option(help="Where the study's data lies: coco/, ade20k/, cifar10/, ...")
]
Data = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FORMAT:PATH for data that lies elsewhere, repeatable."),
]
Small = Annotated[
    bool,
    typer.Option(
        "--miniature", help="Small stand-ins for data, weights and steps, through the same code."
    ),
]

Seeds = Annotated[
    int, typer.Option(help="Train everything so often, at the study's seed and at those after it.")
]


def _site(selection: "Selection", out: Path | None, root: Path, data: list[str] | None) -> "Site":
    from stillrobust.study import Site
    from stillrobust.study.state import resolve_data

    named = {name: spec for study in selection.studies for name, spec in study.data.items()}
    folder = out or Path("miniature" if selection.miniature else "studies")
    return Site(folder.resolve(), resolve_data(named, root, data or []))


@study.command()
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
        typer.Option(
            min=0, help="At most so many; 0, the default: one a GPU, or a core by memory."
        ),
    ] = None,
    share_corrupted: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Keep corrupted images for the next model, at most so much: 20GB."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="What runs it: local, ray or slurm; see docs/cluster.md.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Of ray: HOST:PORT of the cluster; by default this machine's."),
    ] = None,
    gpu_fraction: Annotated[
        float | None, typer.Option(help="Of ray: the part of a GPU that each worker takes.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "Of slurm: an option of sbatch for each worker, KEY=VALUE, repeatable:"
                " partition=gpu."
            )
        ),
    ] = None,
) -> None:
    """Do what is missing of one study, several, or all of the paper's; then report.

    A finished study is left alone.

    Example: stillrobust study run table1 --miniature --out small

    Example: stillrobust study run table1 --engine ray --gpu-fraction 0.5 --out /shared/table1
    """
    from stillrobust.data.shared import bytes_of
    from stillrobust.study import select

    share = bytes_of(share_corrupted) if share_corrupted else 0
    sbatch = dict(_pair(one) for one in slurm) if slurm else None
    options: dict[str, Any] = {}
    for flag, belongs, name, value in (
        ("--address", "ray", "address", address),
        ("--gpu-fraction", "ray", "gpu_fraction", gpu_fraction),
        ("--slurm", "slurm", "sbatch", sbatch),
    ):
        if value is not None and engine != belongs:
            raise UserError(
                f"Expected {flag} with --engine {belongs} only, but the engine is {engine}; leave"
                " one of them out"
            )
        options |= {name: value} if value is not None else {}
    selection = select(studies or [], protocol, miniature, seeds)
    site = _site(selection, out, data_root, data)
    do(selection, site, workers, share, engine, options)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(
            f"Expected KEY=VALUE after --slurm, but got {text!r}; write it as partition=gpu"
        )
    return name.strip(), value.strip()


def do(
    selection: "Selection",
    site: "Site",
    workers: int | None,
    share: int = 0,
    engine: str = "local",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Run a selection with progress, list what failed, and report."""
    from stillrobust.study.execute import run_study
    from stillrobust.study.state import failures_text

    with progress(site.progress) as listen:
        failures = run_study(
            selection,
            site,
            workers or 0,
            listen.say,
            listen,
            listen.expect,
            share,
            engine,
            options or {},
        )
    _show(selection, site)
    for line in failures_text({failure.job: failure.reason for failure in failures}):
        typer.echo(line, err=True)
    if failures:
        again = shlex.join(["stillrobust", *sys.argv[1:]])
        typer.echo(
            f"{len(failures)} jobs failed or could not begin; what was finished is kept. Try them"
            f" again: {again}",
            err=True,
        )
        raise typer.Exit(FAILED)


def _show(selection: "Selection", site: "Site") -> None:
    """The page, and for studies with panels their tables and figures beside the paper's values."""
    from stillrobust.study import states

    finish(site.results, site.out)
    shown = any(study.panels for study in selection.studies)
    if shown and any(state.finished for state in states(selection.runs, selection.asked, site)):
        show_paper(site.results, site.out / "paper", selection.protocol or None, selection.names)


@study.command()
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
    """Say what there is to do, what is done, which weights and data are missing and how to get
    them, and what it costs.

    Runs that cannot be, such as one of an unknown recipe, are named; the status is then 3.

    Example: stillrobust study plan table1 figure2 --protocol benchmark
    """
    from stillrobust.study import select
    from stillrobust.study.plan import plan as make_plan
    from stillrobust.study.plan import plan_text

    selection = select(studies or [], protocol, miniature, seeds)
    found = make_plan(selection, _site(selection, out, data_root, data))
    typer.echo(plan_text(found, runs))
    if found.faults:
        raise typer.Exit(FAILED)


@study.command()
def status(
    out: Annotated[Path, typer.Option(help="The folder that the study works in.")] = Path(
        "studies"
    ),
) -> None:
    """Say how far a study is, from another terminal.

    Example: stillrobust study status --out small
    """
    from stillrobust.study import Site, recall
    from stillrobust.study.state import failures_of, states, status_text

    selection, site = recall(out), Site(out.resolve())
    typer.echo(status_text(site, states(selection.runs, selection.asked, site), failures_of(site)))


@study.command()
def report(
    out: Annotated[Path, typer.Option(help="The folder that the study works in.")] = Path(
        "studies"
    ),
) -> None:
    """Report on a study: the page, its tables and figures, ours beside the paper's values, and what
    becomes of its claims.

    Example: stillrobust study report --out small
    """
    from stillrobust.study import Site, recall

    _show(recall(out), Site(out.resolve()))


@study.command()
def export(
    file: Annotated[Path, typer.Argument(help="A .csv or .json file to write.")],
    out: Annotated[Path, typer.Option(help="The folder that the study works in.")] = Path(
        "studies"
    ),
) -> None:
    """Write every number of a study with its key, its run and its circumstances.

    Example: stillrobust study export numbers.csv --out small
    """
    from stillrobust.report.export import export_measurements
    from stillrobust.study import Site, recall

    typer.echo(f"{export_measurements(recall(out), Site(out.resolve()), file)} numbers: {file}")


@study.command()
def explain(
    first: Annotated[
        str,
        typer.Argument(help="A cell's key, or the first digits of it, or RUN/CORRUPTION/SEVERITY."),
    ],
    second: Annotated[str, typer.Argument(help="The other one's.")],
    out: Annotated[Path, typer.Option(help="The folder that the study works in.")] = Path(
        "studies"
    ),
) -> None:
    """Say why two numbers differ: what was not the same when they were measured.

    Example: stillrobust study explain 3f2a91bc 77e01d45 --out small
    """
    from stillrobust.storage.store import Store
    from stillrobust.study import Site
    from stillrobust.study.explain import explain as find
    from stillrobust.study.explain import explanation_text

    typer.echo(explanation_text(find(Store(Site(out).results), first, second)))
