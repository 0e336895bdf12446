"""The names of the models of timm and torchvision, without importing them.

Both register a model with the decorator ``register_model``. Its occurrences in their sources are
found in a fifth of a second; importing the libraries takes seconds.
"""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from stillrobust.extras import require_extra

_REGISTERED = re.compile(
    r"^@register_model(?:\((?:name=\"(\w+)\")?\))?\n(?:[^\n]*\n)*?def (\w+)\(",
    re.MULTILINE,
)


@cache
def model_names(library: Literal["timm", "torchvision"]) -> frozenset[str]:
    """Return the names of the models that a library has.

    Args:
        library: The package.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    require_extra("torch")
    spec = find_spec(library)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    names = frozenset(
        match[1] or match[2]
        for folder in folders
        for path in Path(folder, "models").rglob("*.py")
        for match in _REGISTERED.finditer(path.read_text(encoding="utf-8"))
    )
    # a release that registers its models in another way
    return names or frozenset(import_module(f"{library}.models").list_models())
