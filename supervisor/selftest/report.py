"""The report of a self-test: as JSON for machines, as rows for a table, and in a sentence."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sandbox.types import Outcome
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict
from supervisor.selftest.matrix import NO_WALL, PASSES, STOPS, Column
from supervisor.selftest.runner import Report

COLUMNS = ["ID", "ATTACK", "WALLS", "IN THE CAGE", "WITHOUT THE WALL"]
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST = 3
"""Most different ends that a row of the table names."""


def as_json(report: Report) -> dict[str, Any]:
    """Everything, with stable names."""
    return {
        "good": report.good,
        "kernel": report.kernel,
        "user": report.user,
        "seconds": round(report.seconds, 1),
        "walls-lost": report.lost,
        "summary": totals(report),
        "attacks": [
            {
                "id": row.id,
                "title": row.title,
                "walls": list(row.walls),
                "good": row.good,
                "cases": [
                    {
                        "name": case.name,
                        "verdict": case.verdict.value,
                        "how": case.how,
                        "control": case.shown.value,
                        "control-how": case.control,
                    }
                    for case in row.cases
                ],
            }
            for row in report.rows
        ],
        "matrix": {
            "walls": report.walls,
            "attacks": [
                {
                    "name": column.name,
                    "shown": column.shown,
                    "baseline": column.baseline,
                    "cells": column.cells,
                    "how": column.how,
                }
                for column in report.columns
            ],
        },
    }


def totals(report: Report) -> dict[str, int]:
    """Numbers of cases."""
    cases = [case for row in report.rows for case in row.cases]
    return {
        "attacks": sum(case.verdict is not Verdict.ANSWERED for case in cases),
        "stopped": sum(case.verdict is Verdict.STOPPED for case in cases),
        "succeeded": sum(case.verdict is Verdict.SUCCEEDED for case in cases),
        "answered": sum(case.verdict is Verdict.ANSWERED for case in cases),
        "odd": sum(case.verdict is Verdict.ODD for case in cases),
        "controls-working": sum(case.shown is Shown.WORKS for case in cases),
        "controls-failed": sum(case.shown is Shown.FAILED for case in cases),
        "cannot-show-here": sum(case.shown is Shown.CANNOT for case in cases),
    }


def table(report: Report) -> list[list[str]]:
    """One line per attack; many cases are counted."""
    return [
        [row.id, _title(row), "; ".join(row.walls), _counted(row, _end), _counted(row, _control)] for row in report.rows
    ]


def _title(row: Row) -> str:
    return row.title if len(row.cases) == 1 else f"{row.title} ({len(row.cases)})"


def _counted(row: Row, text: Any) -> str:
    counted = Counter(text(case) for case in row.cases)
    if len(counted) == 1:
        return str(next(iter(counted)))
    first = [f"{count} {name}" for name, count in counted.most_common(_MOST)]
    rest = sum(counted.values()) - sum(count for _, count in counted.most_common(_MOST))
    return ", ".join(first) + (f", {rest} otherwise" if rest else "")


def _end(case: CaseResult) -> str:
    if case.verdict is Verdict.SUCCEEDED:
        return f"SUCCEEDED: {case.how}"
    if case.verdict is Verdict.ODD:
        return f"odd: {case.how}"
    if case.verdict is Verdict.ANSWERED:
        return case.how
    if case.how == Outcome.POLICY:
        return "killed (SIGSYS)"
    return "allowed, to no gain" if case.how.lstrip("-").isdecimal() else case.how


def _control(case: CaseResult) -> str:
    if case.shown is Shown.CANNOT:
        return f"cannot show here: {case.control}"
    return case.shown.value if case.shown is Shown.WORKS else f"FAILED: {case.control}"


def complaints(report: Report) -> list[str]:
    """A line for each case that is not as it must be."""
    lines = []
    for row in report.rows:
        for case in row.cases:
            if case.verdict not in (Verdict.STOPPED, Verdict.ANSWERED):
                lines.append(f"{row.id} {row.title}: {case.name}: {case.verdict.value}: {case.how}")
            if case.shown is Shown.FAILED:
                lines.append(f"{row.id} {row.title}: {case.name}: the control did not work: {case.control}")
    return lines


def matrix(report: Report) -> list[str]:
    """The matrix as lines of text: one letter per wall, and what the letters mean."""
    title = "each wall alone"
    width = max(len(title), *(len(column.name) for column in report.columns))
    letters = _LETTERS[: len(report.walls)]
    lines = [f"{title:<{width}}  {' '.join(letters)}"]
    for column in report.columns:
        lines.append(f"{column.name:<{width}}  {_cells(column, report.walls)}".rstrip())
    legend = [f"{letter} {wall}" for letter, wall in zip(letters, report.walls, strict=True)]
    lines += ["", "# stops it   . does not   (blank) cannot stand alone there"]
    lines += [", ".join(legend[at : at + 9]) for at in range(0, len(legend), 9)]
    return lines


def _cells(column: Column, walls: list[str]) -> str:
    if not column.shown:
        return f"cannot show here: {column.baseline}"
    signs = {STOPS: "#", PASSES: ".", NO_WALL: " "}
    return " ".join(signs[column.cells[wall]] for wall in walls)


def sentence(report: Report) -> str:
    """The result."""
    total = totals(report)
    text = (
        f"{total['attacks']} attacks as {report.user} on Linux {report.kernel} in {report.seconds:.0f} s: "
        f"{total['stopped']} stopped, {total['succeeded']} succeeded, {total['odd']} stopped oddly; "
        f"controls: {total['controls-working']} work, {total['controls-failed']} failed, "
        f"{total['cannot-show-here']} cannot be shown here"
    )
    for name, lost in sorted(report.lost.items()):
        text += f"\nwall lost: {name}: {lost}"
    return text
