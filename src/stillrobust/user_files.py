"""Python files of users in the place of component names, such as ``my_corruption.py``.

A file can also be a part of ``a+b``. A file is identified by its content. ``resolve_user_file``
writes the hash into the spec, so every process runs the same code or none:
``/home/me/my_technique.py@0123456789abcdef``. In the path, ``+``, ``@``, ``%``, brackets and quotes
are percent-encoded. Imports of a file are not hashed.
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
from stillrobust.untrusted import read_user_file

DIGITS = 16
EXPECTED = "a Python file"
USER_FILE = re.compile(rf"(?P<path>[^+(@]+\.py)(?:@(?P<digest>[0-9a-f]{{{DIGITS}}}))?")
# in the place of a name, alone or as a part of a+b
IN_SPEC = re.compile(rf"(?:^|(?<=\+))\s*{USER_FILE.pattern}\s*(?=[(+]|$)")
SPECIAL = re.compile(r"""[%+()@'"]""")  # percent-encoded in paths, as specs use them
STEM = re.compile(r"[^\W_][\w-]*")  # of file names that may stand in specs


def is_user_file(name: str) -> bool:
    """Return whether a name is the path of a Python file, resolved or not."""
    return USER_FILE.fullmatch(name.strip()) is not None


def resolve_user_file(spec: str, folder: Path = Path()) -> str:
    """Replace each Python file in a spec by its absolute path and content hash.

    Args:
        spec: A component spec. Files that are already resolved stay as they are.
        folder: Folder that relative paths start from.

    Raises:
        UserError: If a file cannot be read or its name has unusual characters.
    """
    if spec.strip().endswith(".py") and (folder / Path(spec.strip()).expanduser()).is_file():
        return _resolve(spec, folder)  # one file, whatever characters its path has
    return IN_SPEC.sub(
        lambda match: match[0] if match["digest"] else _resolve(match["path"], folder), spec
    )


def display_name(spec: str) -> str:
    """Return ``spec`` for display, with the stem in place of a file's path."""
    return IN_SPEC.sub(lambda match: Path(match["path"]).stem, spec)


def file_name(spec: str) -> str:
    """Return the name of the file that ``spec`` consists of."""
    return f"{display_name(spec)}.py"


def path_of(spec: str) -> Path:
    """Return the path of the file that ``spec`` consists of, resolved or not."""
    match = USER_FILE.fullmatch(spec.strip())
    assert match, spec
    return Path(unquote(match["path"]) if match["digest"] else match["path"])


def with_content_hash(spec: str) -> str:
    """Return ``spec`` for keys: files by stem and content hash, without their folders."""
    return IN_SPEC.sub(
        lambda match: f"{Path(match['path']).stem}@{match['digest']}", resolve_user_file(spec)
    )


def require_free(spec: str, kind: str, taken: Collection[str]) -> None:
    """Check that a file does not have the name of a built-in component.

    Args:
        spec: The file.
        kind: Kind of component, for the error.
        taken: Names of the built-in components.

    Raises:
        UserError: If the name is taken.
    """
    if display_name(spec) in taken:
        raise UserError(
            f"Expected a name that no {kind} has, but got {path_of(spec)}; rename the file"
        )


def _resolve(path: str, folder: Path) -> str:
    file = folder / Path(path.strip()).expanduser()
    if not STEM.fullmatch(file.stem):
        raise UserError(
            f"Expected a file named with letters, digits, '_' and '-', but got {file.name!r};"
            " rename it"
        )
    path = SPECIAL.sub(lambda match: f"%{ord(match[0]):02X}", str(file.resolve()))
    return f"{path}@{_digest(read_user_file(file, EXPECTED))}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


@lru_cache(maxsize=64)
def load_user_module(spec: str, expected: str) -> ModuleType:
    """Return the module of a resolved file, run once per process.

    Args:
        spec: A file with its content hash.
        expected: What the file must define, for errors.

    Raises:
        UserError: If the content has changed, or the file fails.
    """
    path = path_of(spec)
    content = read_user_file(path, EXPECTED)
    if _digest(content) != spec.rpartition("@")[2]:
        raise UserError(
            f"Expected {path} unchanged since this command started, but it has changed; start again"
            " with the new content"
        )
    return run_user_file(path, content, expected)


def run_user_file(path: Path, content: bytes, expected: str) -> ModuleType:
    """Run the content of a Python file as a module. It is the user's code and runs as it is.

    Args:
        path: The file.
        content: Its content.
        expected: What the file must define, for errors.

    Raises:
        UserError: If the file raises an error.
    """
    module = ModuleType(f"stillrobust_user_{path.stem}_{_digest(content)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[module.__name__]
        raise UserError(
            f"Expected {expected} in {path}, but running it failed: {error_summary(error)};"
            " correct it"
        ) from error
    return module


def error_summary(error: BaseException) -> str:
    """Return type and message of an exception on one line of at most 200 characters."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an exception of a user's own class
        text = "without a message"
    return f"{type(error).__name__}: {text}".splitlines()[0][:200]
