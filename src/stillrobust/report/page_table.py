"""The table of the page, in the paper's layout, and the paper's own beside it."""

from collections.abc import Collection, Sequence
from html import escape

from stillrobust import paper
from stillrobust.analysis.intervals import LEVEL
from stillrobust.report.came_along import HEADINGS as ALONG_HEADINGS
from stillrobust.report.came_along import NOTE, Along, along_cells
from stillrobust.report.came_along import TEXT_COLUMNS as ALONG_TEXT
from stillrobust.report.figures import FRAME
from stillrobust.report.gained_upstream import HEADINGS as GAINED_HEADINGS
from stillrobust.report.gained_upstream import TEXT_COLUMNS as GAINED_TEXT
from stillrobust.report.gained_upstream import TITLE, Gained, gained_cells
from stillrobust.report.rows import Row, Summary
from stillrobust.report.summary import TASKS, backbone_name
from stillrobust.report.tables import ALIKE, HEADINGS, TEXT_COLUMNS, Block, blocks

DROPS = [f"drop.{heading.lower()}" for heading in HEADINGS[TEXT_COLUMNS + 1 : -2]] + ["drop"]
FILTERS = ("Task", "Backbone", "Mode", "Metric")


def table(summary: Summary) -> str:
    """Every run, the best drop of each table in bold, with the filters that a script brings to
    life.
    """
    if not summary.rows:
        return ""
    choices: dict[str, dict[str, None]] = {name: {} for name in FILTERS}
    bodies = [_lines(block, choices) for block in blocks(summary.rows)]
    levels = sorted({row.robustness.severities for row in summary.rows})
    at = " or ".join(", ".join(map(str, severities)) for severities in levels)
    note = (
        "Clean score and performance drops in %, lower drops are better (best in bold); mean over"
        f" the 15 corruptions at severity {at}. [ ]: {LEVEL:.0%} interval, images resampled"
        f" {summary.replicates} times; it does not hold the chance of another training. {ALIKE}"
    )
    return (
        f'<h2 id="table" tabindex="-1">The table</h2>{_filters(choices)}'
        f'<div {FRAME} aria-label="The table"><table class="numbers sortable cards" id="runs">'
        "<caption>All complete runs</caption><thead><tr"
        f' class="heads">{heads(HEADINGS)}</tr></thead>'
        f"{''.join(bodies)}</table></div><p class=soft>{escape(note)}</p>"
    )


def _lines(block: Block, choices: dict[str, dict[str, None]]) -> str:
    """What may be compared, in one body, headed by what keeps it apart; ``choices`` collects what
    the filters offer.
    """
    best = [min(row.value(quantity) for row, _ in block.lines) for quantity in DROPS]
    head = (
        '<tr class="group"><th scope="rowgroup"'
        f' colspan="{len(HEADINGS)}">{escape(block.title)}</th></tr>'
        if block.title
        else ""
    )
    lines = []
    for row, texts in block.lines:
        said = dict(zip(FILTERS, (texts[0], backbone_name(row.run), *texts[2:4]), strict=True))
        for name, choice in said.items():
            choices[name][choice] = None
        lines.append(_line(row, texts, said, best))
    return f"<tbody>{head}{''.join(lines)}</tbody>"


def heads(texts: Sequence[str], text_columns: Collection[int] = range(TEXT_COLUMNS)) -> str:
    """Heads of columns, ``text_columns`` of text, the others of numbers."""
    return "".join(
        f'<th scope="col"{_kind(index, text_columns)}>{escape(text)}</th>'
        for index, text in enumerate(texts)
    )


def along_tables(along: Sequence[Along], gained: Sequence[Gained]) -> str:
    """What each technique gains upstream and after each transfer; empty where none was measured
    beside the regular backbone.
    """
    if not (along or gained):
        return ""
    lines = [*map(along_cells, along)], [*map(gained_cells, gained)]
    return (
        '<h2 id="along">Did the robustness come along?</h2>'
        + simple_table(
            "What is gained upstream and after each transfer", ALONG_HEADINGS, lines[0], ALONG_TEXT
        )
        + simple_table(TITLE, GAINED_HEADINGS, lines[1], GAINED_TEXT)
        + f"<p class=soft>{escape(NOTE)}</p>"
    )


def simple_table(
    caption: str,
    headings: Sequence[str],
    lines: Sequence[Sequence[str]],
    text_columns: Collection[int],
) -> str:
    """Texts as a table that sorts and is cards on a phone; empty where there are no lines."""
    if not lines:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(line[0])}</th>'
        + "".join(
            f"<td{_kind(index, text_columns)}"
            f' data-head="{escape(headings[index])}">{escape(text)}</td>'
            for index, text in enumerate(line[1:], 1)
        )
        + "</tr>"
        for line in lines
    )
    return (
        f'<div {FRAME} aria-label="{escape(caption)}"><table class="numbers sortable'
        f' cards"><caption>{escape(caption)}</caption>'
        "<thead><tr"
        f' class="heads">{heads(headings, text_columns)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _kind(index: int, text_columns: Collection[int]) -> str:
    return "" if index in text_columns else " class=number"


def published(rows: Sequence[Row]) -> str:
    """The paper's own tables for the tasks on the page: other data and training, so beside ours and
    not among it.
    """
    printed = {"detection": "Table 1", "segmentation": "Table 2"}
    shown = {
        printed.get(row.run.task): TASKS[row.run.task] for row in rows if row.run.task in printed
    }
    lines = []
    for one in paper.tables():
        for line in one.rows.values() if one.name in shown else ():
            lines.append(
                [
                    str(line["model"]),
                    shown[one.name],
                    *(f"{line[quantity]:.2f}" for quantity in DROPS[:-1]),
                ]
            )
    about = (
        "Other data, other sizes, longer training: the order of the models can be compared with the"
        " table above, the numbers cannot."
    )
    held = simple_table(about, ("Model", "Task", *HEADINGS[5:9]), lines, range(2))
    title = "Drops in % with fixed features, on COCO and ADE20K"
    return (
        held and f"<h2>What the paper found</h2><details><summary>{title}</summary>{held}</details>"
    )


def _filters(choices: dict[str, dict[str, None]]) -> str:
    """Hidden until a script shows it: without one it could do nothing."""
    fields = "".join(
        f'<label>{name} <select data-filter="{name.lower()}"><option value="">all</option>'
        + "".join(f"<option>{escape(choice)}</option>" for choice in every)
        + "</select></label>"
        for name, every in choices.items()
        if len(every) > 1
    )
    return (
        '<form class="filters" id="filters" role="search" aria-label="Filter the runs" hidden>'
        f'<label>Search <input type="search" id="search" autocomplete="off"></label>{fields}'
        '<button type="reset">Show all</button><output aria-live="polite"></output></form>'
    )


def _line(row: Row, texts: Sequence[str], said: dict[str, str], best: Sequence[float]) -> str:
    bold = {
        TEXT_COLUMNS + 1 + index
        for index, quantity in enumerate(DROPS)
        if row.value(quantity) <= best[index]
    }
    marks = "".join(f' data-{name.lower()}="{escape(choice)}"' for name, choice in said.items())
    parts = []
    for index, text in enumerate(texts):
        kind = "" if index < TEXT_COLUMNS else f' class="number{" best" if index in bold else ""}"'
        # what a card on a phone says beside the value
        kind += f' data-head="{HEADINGS[index]}"' if index != 1 else ""
        tag = 'th scope="row"' if index == 1 else "td"
        parts.append(f"<{tag}{kind}>{escape(text)}</{tag.split()[0]}>")
    return f'<tr data-run="{escape(row.run.name)}"{marks}>{"".join(parts)}</tr>'
