"""Measure the robustness of vision models under image corruptions, before and after a transfer."""

from typing import Any

from stillrobust.extras import turn_off_telemetry

__version__ = "0.1.0"

__all__ = ["__version__", "corrupt", "get_corruption_names"]

turn_off_telemetry()  # before any library that has some is imported


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import stillrobust`` and the command line's ``--help`` are
    instant.
    """
    if name in ("corrupt", "get_corruption_names"):
        from stillrobust import corruptions

        return getattr(corruptions, name)
    raise AttributeError(f"module 'stillrobust' has no attribute {name!r}")
