"""Are these models still robust? Transfer ImageNet backbones and measure them under image
corruptions.
"""

from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "corrupt", "get_corruption_names"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import stillrobust`` and the command line's ``--help`` are
    instant.
    """
    if name in ("corrupt", "get_corruption_names"):
        from stillrobust import corruptions

        return getattr(corruptions, name)
    raise AttributeError(f"module 'stillrobust' has no attribute {name!r}")
