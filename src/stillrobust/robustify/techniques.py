"""The techniques by name, without loading torch."""

from typing import TYPE_CHECKING

from stillrobust.names import LazyTable, lookup, parse_spec, split_sum
from stillrobust.user_files import is_user_file, resolve_user_file

if TYPE_CHECKING:
    from stillrobust.robustify.technique import TechniqueEntry

_PACKAGE = "stillrobust.robustify"
TECHNIQUES: LazyTable["TechniqueEntry"] = LazyTable(
    {
        "ant": f"{_PACKAGE}.ant:ANT",
        "augmix": f"{_PACKAGE}.augmix:AUGMIX",
        "autoaugment": f"{_PACKAGE}.policies:AUTOAUGMENT",
        "deepaugment": f"{_PACKAGE}.deepaugment:DEEPAUGMENT",
        "gaussian": f"{_PACKAGE}.noise:GAUSSIAN",
        "l2": f"{_PACKAGE}.adversarial:L2",
        "noise2net": f"{_PACKAGE}.noise2net:NOISE2NET",
        "prime": f"{_PACKAGE}.prime:PRIME",
        "randaugment": f"{_PACKAGE}.policies:RANDAUGMENT",
        "speckle": f"{_PACKAGE}.noise:SPECKLE",
        "trivialaugment": f"{_PACKAGE}.policies:TRIVIALAUGMENT",
    }
)


def require_known_techniques(spec: str) -> None:
    """Check the names in the spec of a technique. Torch is not loaded.

    Args:
        spec: Such as ``augmix(severity=3)+prime`` or the path of a Python file.

    Raises:
        UserError: If a name is unknown or a file does not exist.
    """
    for part in split_sum(resolve_user_file(spec), "a technique", "ant(kernel=3)"):
        name = parse_spec(part)[0]
        if not is_user_file(name):
            lookup("technique", name, dict.fromkeys(TECHNIQUES))
