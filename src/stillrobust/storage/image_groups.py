"""The groups of a run's images, such as the frames of one video."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillrobust.storage.records import DamagedRecordError


@dataclass(frozen=True)
class ImageGroups:
    """Which images belong together. Intervals of the run resample groups instead of images."""

    by: str
    """The rule: ``folder``, a regular expression, or ``field:NAME``."""
    of: Mapping[str, str]
    """Image id -> name of its group."""

    def body(self, run: str) -> dict[str, Any]:
        """Return the body of the record of a run's groups."""
        return {"name": run, "by": self.by, "groups": dict(self.of)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any], name: str) -> "ImageGroups":
        """Make groups from the body of their record.

        Args:
            body: The parsed JSON. Unknown keys are ignored.
            name: Name of the run, from the name of the file.

        Raises:
            DamagedRecordError: If a value is missing, of a wrong type, or belongs to another run.
        """
        by, groups = body.get("by"), body.get("groups")
        if body.get("name") != name:
            raise DamagedRecordError(f"it is of run {body.get('name')!r:.80}")
        if type(by) is not str or type(groups) is not dict:
            raise DamagedRecordError("it has no groups")
        if not all(type(group) is str for group in groups.values()):
            raise DamagedRecordError("a group is not text")
        return cls(by, groups)
