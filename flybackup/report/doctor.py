"""What `doctor` says."""

from collections.abc import Iterator, Sequence

from flybackup.doctor import Finding
from flybackup.report.documents import Document
from flybackup.report.table import Block
from flybackup.report.units import count

_SIGNS = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}
_INDENT = " " * 8


def doctor_document(findings: Sequence[Finding]) -> Document:
    return {"ok": healthy(findings), "findings": [each._asdict() for each in findings]}


def healthy(findings: Sequence[Finding]) -> bool:
    return all(each.level != "error" for each in findings)


def doctor_text(findings: Sequence[Finding]) -> Iterator[Block]:
    for each in findings:
        yield f"{_SIGNS[each.level]} {each.subject}: {each.what}" + (f"\n{_INDENT}{each.do}" if each.do else "")
    errors = sum(each.level == "error" for each in findings)
    warnings = sum(each.level == "warning" for each in findings)
    if not errors and not warnings:
        yield "\nNothing found that could make a backup or restore fail."
    else:
        yield f"\n{count(errors, 'error')}, {count(warnings, 'warning')}."
