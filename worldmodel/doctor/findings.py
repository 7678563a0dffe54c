"""What the doctor found: for every check a verdict, the value, what was expected, and what to do."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["pass", "warn", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        check: what was examined.
        verdict: FAIL where a training would break, warn where it may be slow or break later.
        value: what was found.
        expected: what is right.
        remedy: what to do; empty where nothing is to be done.
    """

    check: str
    verdict: Verdict
    value: str
    expected: str
    remedy: str = ""


def judge(check: str, failed: bool, value: str, expected: str, remedy: str, warned: bool = False) -> Finding:
    """A finding whose remedy is told only where it is needed."""
    verdict: Verdict = "FAIL" if failed else "warn" if warned else "pass"
    return Finding(check, verdict, value, expected, "" if verdict == "pass" else remedy)


def table(findings: Sequence[Finding]) -> list[str]:
    """The findings as lines of text, remedies below those that need one."""
    rows = [("check", "verdict", "found", "expected"), *((f.check, f.verdict, f.value, f.expected) for f in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    told = [lines[0].rstrip()]
    for finding, line in zip(findings, lines[1:], strict=True):
        told.append(line.rstrip())
        if finding.remedy:
            told.append(f"{'':{widths[0]}}  -> {finding.remedy}")
    return told


def write_json(findings: Sequence[Finding], path: Path) -> None:
    """The findings for machines: a list of objects; the file appears whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps([asdict(finding) for finding in findings], indent=2), encoding="utf-8")
    partial.replace(path)
