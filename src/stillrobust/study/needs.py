"""Weights and data that runs need: whether they are there, and the command that gets them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.names import parse_spec
from stillrobust.study.miniature import FOLDER
from stillrobust.study.schema import UPSTREAM, StudyRun
from stillrobust.study.state import GENERATED, Site


@dataclass(frozen=True)
class Need:
    """Something that must be there before a run can begin."""

    name: str
    there: bool
    way: str
    """Where it is missing: what is missing and how to get it."""


def weight_needs(runs: Iterable[StudyRun]) -> list[Need]:
    """The upstream weights of some runs, each once."""
    return [
        _weights(spec) for spec in dict.fromkeys(run.backbone for run in runs if not run.made_by)
    ]


def _weights(spec: str) -> Need:
    from stillrobust.backbones import missing_weights

    if str(parse_spec(spec)[1].get("weights")).startswith(f"{FOLDER}/"):
        return Need(spec, True, "")  # made here
    lacking = missing_weights(spec)
    return Need(spec, not lacking, lacking)


def data_needs(runs: Iterable[StudyRun], site: Site) -> list[Need]:
    """The datasets of some runs, each once."""
    needs: dict[str, Need] = {}
    for run in runs:
        for name in (run.test_data,) if run.transfer == UPSTREAM else (run.data, run.test_data):
            if name not in needs and name not in GENERATED:
                needs[name] = _data(name, run, site)
    return list(needs.values())


def _data(name: str, run: StudyRun, site: Site) -> Need:
    try:
        kind, _, path = site.data_of(run, name).partition(":")
    except UserError as error:
        return Need(name, False, str(error))
    if Path(path).expanduser().is_dir():
        return Need(name, True, "")
    from stillrobust.data.check import repair_advice

    way = (
        f"{name} is not in {path}. {repair_advice(kind.partition('(')[0], Path(path))} Or say where"
        f" it lies: --data {name}={kind}:PATH"
    )
    return Need(name, False, way)
