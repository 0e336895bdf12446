"""Read study files: shipped ones by name, others by path."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.strict_yaml import YamlError, load_yaml
from stillrobust.study.runs import selected_runs
from stillrobust.study.schema import Study, first_error
from stillrobust.untrusted import read_user_text
from stillrobust.user_files import resolve_user_file

LARGEST = 1 << 18  # bytes of a study file; the largest one here has 5 kB
STUDIES = Path(__file__).parent.parent / "studies"
CLAIMS = ".claims"
"""End of the stem of a file of claims that lies beside a shipped study."""


def shipped() -> dict[str, Path]:
    """Return the studies that come with the package: name -> path."""
    files = sorted(STUDIES.glob("*.yaml"))
    return {path.stem: path for path in files if not path.stem.endswith(CLAIMS)}


def find_study(name: str) -> Path:
    """Return the path of a study.

    Args:
        name: The path of a file, or the name of a shipped study.

    Returns:
        The path.

    Raises:
        UserError: If there is no such study.
    """
    path = Path(name).expanduser()
    # not a folder: `make demo` creates one that is called demo
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    return lookup("study", name, shipped())


def read_study(path: Path) -> Study:
    """Read and check a study file.

    Args:
        path: The file.

    Returns:
        The study. A study with ``from`` has the runs of that file; the path of its claims is
        complete.

    Raises:
        UserError: If the file cannot be read or is wrong; it names the position.
    """
    study = _read(path)
    if study.source is not None:
        if study.runs:
            raise UserError(f"The study {path} has both `from` and `runs`; keep one of them")
        base = _read(_neighbour(path, study.source, "from"))
        if base.source is not None:
            raise UserError(
                f"The study {path} is `from` {study.source}, which is `from` {base.source} itself;"
                " name that one"
            )
        given = study.model_dump(exclude_unset=True)
        study = study.model_copy(
            update={
                "models": {**base.models, **study.models},
                "data": {**base.data, **study.data},
                "protocols": study.protocols or base.protocols,
                "runs": base.runs,
                "seed": given.get("seed", base.seed),
                "scenes": given.get("scenes", base.scenes),
            }
        )
    if not study.runs:
        raise UserError(
            f"The study {path} has no runs; write some under `runs`, or use those of another"
            " file with `from`"
        )
    selected_runs(study)
    if study.claims is not None:
        claims = _neighbour(path, study.claims, "claims")
        study = study.model_copy(update={"claims": str(claims)})
    return study


def _neighbour(path: Path, source: str, key: str) -> Path:
    """A file that a study names, which is in the study's folder."""
    base = path.parent / source
    folders = {Path(os.path.realpath(path.parent)), Path(os.path.realpath(path)).parent}
    if (
        Path(source).name != source
        or "\0" in source
        or Path(os.path.realpath(base)).parent not in folders
    ):
        raise UserError(
            f"Expected `{key}` in the study {path} to name a file in the same folder, but got"
            f" {source!r}; copy the file there"
        )
    return base


def _read(path: Path) -> Study:
    text = read_user_text(path, "a study", LARGEST)
    try:
        return (
            _parsed(text)
            if ".py" not in text
            else Study.model_validate(_resolve_files(load_yaml(text), path.parent))
        )
    except ValidationError as error:
        raise UserError(
            f"The study {path} is wrong {first_error(error)}; correct it there"
        ) from None
    except YamlError as error:
        raise UserError(
            f"Expected YAML in the study {path}, but {error}; correct it there"
        ) from None


@lru_cache(maxsize=32)  # the paper's runs are read once for its eight studies
def _parsed(text: str) -> Study:
    return Study.model_validate(load_yaml(text))


def _resolve_files(content: Any, folder: Path, key: str = "") -> Any:
    """The content of a study file, with paths of users' files resolved relative to it."""
    if isinstance(content, dict):
        return {name: _resolve_files(value, folder, str(name)) for name, value in content.items()}
    if isinstance(content, list):
        return [_resolve_files(value, folder, key) for value in content]
    return (
        resolve_user_file(content, folder)
        if key in ("technique", "corruptions") and isinstance(content, str)
        else content
    )
