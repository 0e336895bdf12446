"""Weights and data that runs require: whether they are available, and how to get them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stillrobust.data import split_dataset_spec
from stillrobust.errors import UserError
from stillrobust.names import parse_spec
from stillrobust.study.miniature import CHECKPOINT_FOLDER
from stillrobust.study.runs import StudyRun
from stillrobust.study.state import GENERATED, Site


@dataclass(frozen=True)
class Requirement:
    """Weights or data that runs require."""

    name: str
    problem: str
    """What is missing and how to get it; empty if nothing is."""

    @property
    def available(self) -> bool:
        """Whether nothing is missing."""
        return not self.problem


def required_weights(runs: Iterable[StudyRun]) -> list[Requirement]:
    """Look up the upstream weights of runs.

    Args:
        runs: Runs of a study.

    Returns:
        One requirement for each backbone; none for backbones that the study makes.
    """
    from stillrobust.backbones import missing_weights

    specs = dict.fromkeys(run.backbone for run in runs if not run.backbone_run)
    return [
        Requirement(spec, "" if _is_miniature(spec) else missing_weights(spec)) for spec in specs
    ]


def _is_miniature(spec: str) -> bool:
    return str(parse_spec(spec)[1].get("weights")).startswith(f"{CHECKPOINT_FOLDER}/")


def required_data(runs: Iterable[StudyRun], site: Site) -> list[Requirement]:
    """Look up the datasets of runs.

    Args:
        runs: Runs of a study.
        site: The folder and the data of the study.

    Returns:
        One requirement for each dataset that is not generated.
    """
    found: dict[str, Requirement] = {}
    for run in runs:
        for name in (run.test_data,) if run.kind == "upstream" else (run.data, run.test_data):
            if name not in found and name not in GENERATED:
                found[name] = Requirement(name, _missing_data(name, run, site))
    return list(found.values())


def _missing_data(name: str, run: StudyRun, site: Site) -> str:
    try:
        kind, path = split_dataset_spec(site.data_of(run, name))
    except UserError as error:
        return str(error)
    if Path(path).expanduser().exists():
        return ""
    from stillrobust.data.check import repair_advice

    return (
        f"{name} is not in {path}. {repair_advice(kind.partition('(')[0], Path(path))} Or give its"
        f" folder: --data {name}={kind}:PATH"
    )
