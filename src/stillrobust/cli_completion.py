"""What Tab offers for the values of options; nothing is imported before it is pressed."""

from collections.abc import Callable


def names_of(family: str) -> Callable[[str], list[str]]:
    """Completes a name of ``family``, as `stillrobust list` has it; of several with commas, the last."""

    def complete(incomplete: str) -> list[str]:
        from stillrobust.cli_list import FAMILIES

        before, comma, last = incomplete.rpartition(",")
        names = [line.partition(":")[0].split("  ")[0] for line in FAMILIES[family]()]
        return [f"{before}{comma}{name}" for name in names if name.startswith(last) and not name.startswith("...")]

    return complete
