"""Print the lower bounds of pyproject.toml as constraints for pip.

Example: python .ci/lower_bounds.py > bounds.txt && pip install -c bounds.txt -e '.[torch]' pytest
"""

import re
import tomllib
from pathlib import Path

EXTRAS = ("torch", "demo", "tensorboard")  # extras whose bounds are tried besides the core's


def lower_bounds(pyproject: Path) -> list[str]:
    """Return a line ``name==bound.*`` for each dependency that has a lower bound.

    Args:
        pyproject: The file ``pyproject.toml``.

    Returns:
        Lines in the order of the file.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]
    found = [re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", line) for line in requirements]
    return [f"{match[1]}=={match[2]}.*" for match in found if match]


if __name__ == "__main__":
    print("\n".join(lower_bounds(Path(__file__).parent.parent / "pyproject.toml")))
