"""Python files of your own where a family has names: ``my_corruption.py``, ``my_technique.py``,
alone or within ``a+b``.

A file is known by its content. ``resolve_user_file`` writes it into the spec, so that any process runs the
same code or none: ``/home/me/my_technique.py@0123456789abcdef``, where ``+``, ``@``, ``%``,
brackets and quotes of a path are written as in an address, ``%2B``. What a file imports is not
looked at.
"""

import hashlib
import re
import sys
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

from stillrobust.errors import UserError

DIGITS = 16
OWN = re.compile(rf"(?P<path>[^+(@]+\.py)(?:@(?P<digest>[0-9a-f]{{{DIGITS}}}))?")
# at the place of a name, of one technique or of a+b
WITHIN = re.compile(rf"(?:^|(?<=\+))\s*{OWN.pattern}\s*(?=[(+]|$)")
SPECIAL = re.compile(r"""[%+()@'"]""")  # in a path, of which a spec would be read otherwise
USER_CODE_ERRORS = (
    Exception,
    SystemExit,
)  # whatever somebody else's code raises, to be told in one sentence
STEM = re.compile(r"[^\W_][\w-]*")  # stands in names of files and in specs


def is_user_file(name: str) -> bool:
    """Whether a name is the path of a file of your own, pinned or not."""
    return OWN.fullmatch(name.strip()) is not None


def resolve_user_file(spec: str, folder: Path = Path()) -> str:
    """``spec`` with each file as its absolute path and its content; relative paths start at
    ``folder``.

    A file that is pinned stays so. Raises ``UserError`` for one that cannot be read or has no name
    to show.
    """
    if spec.strip().endswith(".py") and (folder / Path(spec.strip()).expanduser()).is_file():
        return _pinned(spec, folder)  # one file, whatever its path looks like
    return WITHIN.sub(
        lambda match: match[0] if match["digest"] else _pinned(match["path"], folder), spec
    )


def display_name(spec: str) -> str:
    """``spec`` as people read it: a file by its name without ``.py``."""
    return WITHIN.sub(lambda match: Path(match["path"]).stem, spec)


def file_name(spec: str) -> str:
    """The name of the one file that ``spec`` is, for a sentence about it."""
    return f"{display_name(spec)}.py"


def path_of(spec: str) -> Path:
    """The path of the one file that ``spec`` is, pinned or not."""
    match = OWN.fullmatch(spec.strip())
    assert match, spec
    return Path(unquote(match["path"]) if match["digest"] else match["path"])


def with_content_hash(spec: str) -> str:
    """``spec`` as keys know it: a file by its name and content, wherever it lies."""
    return WITHIN.sub(
        lambda match: f"{Path(match['path']).stem}@{match['digest']}", resolve_user_file(spec)
    )


def require_free(spec: str, kind: str, taken: Collection[str]) -> None:
    """Raise ``UserError`` if a file would be shown under a name that is built in."""
    if display_name(spec) in taken:
        raise UserError(
            f"Expected a name that no {kind} has, but got {path_of(spec)}; rename the file"
        )


def _pinned(path: str, folder: Path) -> str:
    file = folder / Path(path.strip()).expanduser()
    if not STEM.fullmatch(file.stem):
        raise UserError(
            f"Expected a file named with letters, digits, '_' and '-', but got {file.name!r};"
            " rename it"
        )
    return f"{SPECIAL.sub(lambda match: f'%{ord(match[0]):02X}', str(file.resolve()))}@{_digest(_read(file))}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(
            f"Expected a Python file of your own at {file}, but {error.strerror}; check the path"
        ) from None


@lru_cache(maxsize=64)
def load_user_module(spec: str, expected: str) -> ModuleType:
    """The module that a pinned file makes, run once in a process; ``expected`` says what has to be
    in it.
    """
    path = path_of(spec)
    content = _read(path)
    if _digest(content) != spec.rpartition("@")[2]:
        raise UserError(
            f"Expected {path} as it was when this began, but it has changed since; start again with"
            " what it is now"
        )
    return run_file(path, content, expected)


def run_file(path: Path, content: bytes, expected: str) -> ModuleType:
    """Run ``content``, which is that of ``path``, as it is: it is your code."""
    module = ModuleType(f"stillrobust_own_{path.stem}_{_digest(content)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except USER_CODE_ERRORS as error:
        del sys.modules[module.__name__]
        raise UserError(
            f"Expected {expected} in {path}, but running it failed: {error_summary(error)}; mend it"
        ) from error
    return module


def error_summary(error: BaseException) -> str:
    """What somebody else's code raised, on one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
