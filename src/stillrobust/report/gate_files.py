"""The verdicts of gates as a line of text, JSON, and JUnit XML for continuous integration."""

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import stillrobust
from stillrobust.analysis.gate import GateVerdict, State
from stillrobust.analysis.intervals import LEVEL
from stillrobust.metrics import METRIC_NAMES
from stillrobust.names import format_count
from stillrobust.report.labels import severities_name
from stillrobust.untrusted import printable

FORMAT = 1  # of the JSON file
EXIT_STATUS: dict[State, int] = {"pass": 0, "fail": 1, "cannot judge": 2}
QUANTITY_NAMES = {"mpc": "mPC", "drop": "drop", "clean": "clean score"}


def exit_status(verdicts: Sequence[GateVerdict]) -> int:
    """Return the exit status of several gates: the largest of theirs, 2 if there are none."""
    return max((EXIT_STATUS[one.state] for one in verdicts), default=EXIT_STATUS["cannot judge"])


def gate_line(verdict: GateVerdict) -> str:
    """Render a verdict as one line with its reason and numbers, in points."""
    if verdict.state == "cannot judge":
        return f"cannot judge {verdict.rule.metric}: {verdict.reason}"
    return f"{verdict.state}: {verdict.reason} ({_numbers(verdict)})"


def _numbers(verdict: GateVerdict) -> str:
    metric = verdict.rule.metric
    quantity = QUANTITY_NAMES.get(metric, metric.partition(":")[2])
    name = METRIC_NAMES.get(verdict.score, verdict.score)
    numbers = (verdict.gain, verdict.low, verdict.high)
    gain, low, high = (f"{100 * number:+.2f}" for number in numbers if number is not None)
    over = f"gain over {verdict.baseline} {gain} [{low}, {high}] points"
    parts = [
        f"{quantity} of {name}, {over}",
        format_count(verdict.images or 0, "image"),
        *([f"groups: {verdict.grouping.protocol}"] if verdict.grouping else []),
        *([severities_name(verdict.severities)] if verdict.severities else []),
    ]
    return "; ".join(parts)


def gate_json(verdicts: Sequence[GateVerdict]) -> str:
    """Render verdicts as JSON, with numbers as fractions and ``null`` for what is unknown."""
    content = {
        "format": FORMAT,
        "stillrobust": stillrobust.__version__,
        "level": LEVEL,
        "exit_status": exit_status(verdicts),
        "gates": [_as_dict(one) for one in verdicts],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _as_dict(verdict: GateVerdict) -> dict[str, Any]:
    rule = verdict.rule
    return {
        "verdict": verdict.state,
        "reason": verdict.reason,
        "candidate": verdict.candidate,
        "baseline": verdict.baseline,
        "metric": rule.metric,
        "score": verdict.score or rule.score,
        "test": rule.test,
        "margin": rule.margin,
        "gain": verdict.gain,
        "low": verdict.low,
        "high": verdict.high,
        "images": verdict.images,
        "severities": verdict.severities,
        "groups": verdict.grouping and verdict.grouping.protocol,
        "warnings": verdict.warnings,
        "protocol": verdict.protocol,
    }


def gate_junit(verdicts: Sequence[GateVerdict]) -> str:
    """Render verdicts as JUnit XML: a test case per gate; ``cannot judge`` is an error."""
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(sum(one.state == "fail" for one in verdicts)),
        "errors": str(sum(one.state == "cannot judge" for one in verdicts)),
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "stillrobust gate", **counts})
    for one in verdicts:
        name = f"{one.rule.test} of {one.rule.metric}, margin {100 * one.rule.margin:g} points"
        pair = f"{one.candidate} against {one.baseline}"
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": printable(pair), "name": printable(name), "time": "0"}
        )
        line = printable(gate_line(one))
        if one.state != "pass":
            tag = "failure" if one.state == "fail" else "error"
            ElementTree.SubElement(case, tag, {"message": line, "type": one.state})
        text = "\n".join([line, *map(printable, one.warnings)])
        ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'
