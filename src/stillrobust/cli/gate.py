"""The command ``gate``."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.grouping import RegroupBy, open_store
from stillrobust.cli.output import print_text

commands = typer.Typer()


@commands.command()
def gate(
    candidate: Annotated[str, typer.Argument(help="Name of the run to judge.")],
    baseline: Annotated[str, typer.Option(help="Name of the run that it is compared with.")],
    results: Annotated[
        Path, typer.Option(help="Folder of results: the --out of evaluate, study run or others.")
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="mpc, drop, clean or corruption:NAME (default: mpc). Repeat it to judge several."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Points that the candidate may lose (default: 1). With --superior: must gain (0)."
        ),
    ] = None,
    superior: Annotated[
        bool, typer.Option("--superior", help="Require that the candidate is better.")
    ] = False,
    score: Annotated[
        str | None, typer.Option(help="Score such as mask_ap (default: the task's first).")
    ] = None,
    severities: Annotated[
        str | None,
        typer.Option(help="Severities, separated by commas (default: all that a run has)."),
    ] = None,
    baseline_results: Annotated[
        Path | None, typer.Option(help="Folder of the baseline (default: --results).")
    ] = None,
    group_by: RegroupBy = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write JSON to this file.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML, which CI systems show, to this file.")
    ] = None,
) -> None:
    """Pass a candidate that is not worse than a baseline.

    The exit status is 0 for pass, 1 for fail and 2 for unknown.

    Example: stillrobust gate int8 --baseline float32 --results out --margin 1.0 --junit gate.xml

    Example: stillrobust gate new --baseline old --results out --metric drop --superior
    """
    from stillrobust.analysis.gate import GateRule, GateVerdict, judge_gate
    from stillrobust.cli.corruptions import parse_severities
    from stillrobust.errors import UserError
    from stillrobust.report.gate_files import exit_status, gate_json, gate_junit, gate_line
    from stillrobust.storage.files import remove_file, write_whole

    files = {gate_json: json_file, gate_junit: junit}
    for path in filter(None, files.values()):
        remove_file(path)  # that of an earlier gate must not stand for this one
    points = margin if margin is not None else (0.0 if superior else 1.0)
    rules = [
        GateRule(
            name,
            points / 100,
            "superiority" if superior else "non-inferiority",
            score,
            None if severities is None else parse_severities(severities),
        )
        for name in metric or ["mpc"]
    ]
    try:
        stores = [open_store(folder, group_by) for folder in (results, baseline_results or results)]
        verdicts = [judge_gate(stores[0], candidate, baseline, one, stores[1]) for one in rules]
    except UserError as error:
        verdicts = [
            GateVerdict("cannot judge", str(error), candidate, baseline, one) for one in rules
        ]
    for one in verdicts:
        print_text(gate_line(one))
        for warning in one.warnings:
            print_text(f"warning: {warning}", err=True)
    write_whole(
        {path: render(verdicts).encode() for render, path in files.items() if path is not None}
    )
    raise typer.Exit(exit_status(verdicts))
