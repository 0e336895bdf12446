r"""Tables as LaTeX in the paper's layouts. They need no package: ``\input`` one anywhere."""

from collections.abc import Sequence

from stillrobust.report.exhibits import Exhibit, Panel
from stillrobust.report.summary import METRICS
from stillrobust.report.tables import ALIKE, GROUP_ORDER, percent

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\symbol{34}", "\N{MINUS SIGN}": "$-$", "\N{GREEK SMALL LETTER EPSILON}": r"$\epsilon$",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{EN DASH}": "--", "\N{DAGGER}": r"\dag{}",
}  # fmt: skip


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is; what plain LaTeX has no letter for becomes a question mark."""
    return "".join(
        SPECIAL.get(letter, letter if letter.isascii() and letter.isprintable() else "?")
        for letter in text
    )


def table_cells(panel: Panel, layout: str) -> list[list[str]]:
    """A panel as the text of its cells, the headings first; a run that is not complete has dashes.

    Letters of runs that are not distinguishable come last, where any run has one.
    """
    if layout == "before_after":
        return _before_after(panel)
    letters = any(entry.row and entry.row.alike for entry in panel.entries)
    lines = [
        [
            "Method",
            *(group.capitalize() for group in GROUP_ORDER),
            "Mean [95 %]",
            *(["Alike"] if letters else []),
        ]
    ]
    for entry in panel.entries:
        if entry.row is None:
            lines.append([entry.label, *["\N{EN DASH}"] * (len(lines[0]) - 1)])
            continue
        groups = [percent(entry.row.value(f"drop.{group}"), 2) for group in GROUP_ORDER]
        mean = interval_text(entry.row.value("drop"), entry.row.interval)
        lines.append([entry.label, *groups, mean, *([entry.row.alike] if letters else [])])
    return lines


def _before_after(panel: Panel) -> list[list[str]]:
    metric = METRICS.get(panel.metric, panel.metric)
    lines = [["", *(entry.label for entry in panel.entries)]]
    for title, quantity in (("clean", "clean"), ("corrupted", "corrupted"), ("drop, %", "drop")):
        values = []
        for entry in panel.entries:
            if entry.row is None:
                values.append("\N{EN DASH}")
            elif quantity == "drop":
                values.append(interval_text(entry.row.value("drop"), entry.row.interval))
            else:
                values.append(percent(entry.row.value(quantity), 2))
        lines.append([f"{metric} {title}", *values])
    letters = [entry.row.alike if entry.row else "" for entry in panel.entries]
    return [*lines, ["alike", *letters]] if any(letters) else lines


def interval_text(value: float, interval: tuple[float, float] | None) -> str:
    """``22.29 [21.80, 22.77]``, in percent."""
    text = percent(value, 2)
    return (
        text
        if interval is None
        else f"{text} [{percent(interval[0], 2)}, {percent(interval[1], 2)}]"
    )


def latex(exhibit: Exhibit, note: str = "") -> str:
    """A ``table`` environment for each panel."""
    return "\n".join(_table(exhibit, panel, note) for panel in exhibit.panels)


def _table(exhibit: Exhibit, panel: Panel, note: str) -> str:
    lines = table_cells(panel, exhibit.layout)
    columns = "l" + "r" * (len(lines[0]) - 1)
    letters = (
        ALIKE.rstrip(".") if any(entry.row and entry.row.alike for entry in panel.entries) else ""
    )
    caption = ". ".join(filter(None, [panel.title, exhibit.title, note, letters])) + "."
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            line(lines[0]),
            r"\hline",
            *map(line, lines[1:]),
            r"\hline",
            r"\end{tabular}",
            rf"\caption{{{escaped(caption)}}}",
            r"\end{table}",
            "",
        ]
    )


def line(cells: Sequence[str]) -> str:
    """One line of a ``tabular``.

    A bracket or star at its beginning would be read as an argument of the line break before it.
    """
    text = " & ".join(map(escaped, cells))
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"
