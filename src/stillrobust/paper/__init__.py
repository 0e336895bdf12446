"""The paper as data: "Does Robustness on ImageNet Transfer to Downstream Tasks?" (CVPR 2022).

``values.yaml`` has the printed numbers with their sources, in percent, by the run ids of
``studies/paper.yaml``. ``claims.yaml`` has the claims as statements about these runs.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stillrobust.errors import UserError
from stillrobust.grid import GROUPS
from stillrobust.strict_yaml import YamlError, load_yaml

HERE = Path(__file__).parent
Metric = Literal["top1", "box_ap", "mask_ap", "miou"]
Quantity = Literal[
    "clean", "corrupted", "drop", "drop.noise", "drop.blur", "drop.weather", "drop.digital"
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PrintedTable(_Strict):
    """One of the paper's tables."""

    name: str
    source: str
    about: str
    metric: Metric
    rows: dict[str, dict[str, float | str]]
    """By run id: ``model``, and percentages by quantity."""


class Statement(_Strict):
    """One comparison of two runs."""

    less: tuple[str, str] | None = None
    """The first is below the second."""
    alike: tuple[str, str] | None = None
    """They differ by less than ``within`` points."""
    within: float = 0.0
    metric: Metric | None = None
    quantity: Quantity | None = None

    @property
    def runs(self) -> tuple[str, str]:
        """The two runs that are compared."""
        runs = self.less or self.alike
        assert runs is not None
        return runs


class ClaimSubject(_Strict):
    """Default metric and quantity of a claim's statements."""

    metric: Metric
    quantity: Quantity


class Claim(_Strict):
    """A claim of the paper."""

    id: str
    text: str
    source: str
    contradicts: str | None = None
    """Id of a claim of the same file that cannot hold together with this one."""
    of: ClaimSubject
    statements: list[Statement]

    def subject_of(self, statement: Statement) -> tuple[Metric, Quantity]:
        """The metric and the quantity of a statement."""
        return statement.metric or self.of.metric, statement.quantity or self.of.quantity


@lru_cache(maxsize=1)
def printed_tables() -> tuple[PrintedTable, ...]:
    """Return Tables 1, 2, 4 and 5."""
    content = load_yaml((HERE / "values.yaml").read_text(encoding="utf-8"))
    return tuple(PrintedTable.model_validate(table) for table in content["tables"])


def load_claims(path: Path = HERE / "claims.yaml") -> list[Claim]:
    """Load the claims of a file.

    Args:
        path: A YAML list of claims; see ``docs/reference/claims.md`` (default: the paper's claims).

    Returns:
        The claims in the order of the file.

    Raises:
        UserError: If the file cannot be read or a claim is invalid.
    """
    try:
        found = [
            Claim.model_validate(claim) for claim in load_yaml(path.read_text(encoding="utf-8"))
        ]
    except OSError as error:
        raise UserError(
            f"Cannot read the claims in {path} ({error.strerror}); check the path"
        ) from None
    except (YamlError, ValidationError, TypeError) as error:
        raise UserError(
            f"Expected a list of claims in {path}, but: {str(error).splitlines()[0]}; see"
            " docs/reference/claims.md"
        ) from None
    known = {claim.id for claim in found}
    for claim in found:
        if claim.contradicts is not None and claim.contradicts not in known:
            raise UserError(
                f"Expected a claim of {path} after `contradicts` in the claim {claim.id}, but got"
                f" {claim.contradicts}; write the id of another claim"
            )
        for statement in claim.statements:
            if (statement.less is None) == (statement.alike is None):
                raise UserError(
                    f"Expected `less` or `alike` in each statement of the claim {claim.id} in"
                    f" {path}; write one of the two"
                )
    return found


def printed_values() -> dict[str, dict[str, float]]:
    """Return the printed numbers of each run, as fractions by quantity.

    The mean drop of Tables 1 and 2 follows from their groups.
    """
    found: dict[str, dict[str, float]] = {}
    for table in printed_tables():
        for run, row in table.rows.items():
            numbers = {key: value / 100 for key, value in row.items() if not isinstance(value, str)}
            found.setdefault(run, {}).update(_with_mean(numbers))
    return found


def _with_mean(numbers: dict[str, Any]) -> Mapping[str, float]:
    """Add the mean over the 15 corruptions: each group is weighted by its number of members."""
    if "drop" in numbers:
        return numbers
    members = {group: len(names) for group, names in GROUPS.items()}
    total = sum(count * numbers[f"drop.{group}"] for group, count in members.items())
    return {**numbers, "drop": total / sum(members.values())}
