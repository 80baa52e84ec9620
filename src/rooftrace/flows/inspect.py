"""`rooftrace inspect`: what a set of data is, and what to mend before it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rooftrace.data.audit.page import render
from rooftrace.data.audit.report import Audit, run_audit
from rooftrace.data.config import SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.io.atomic import write_atomically

__all__ = ["run_inspect"]


def run_inspect(
    data: SourceConfig,
    against: SourceConfig | None = None,
    out: Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Audit a set, and write the page.

    Args:
        data: any kind of data, with labels or without.
        against: another set that it is held against, such as the images to predict.
        out: the HTML file; None writes none.
        progress: called with the images that are done and that there are.

    Raises:
        DataError and its kinds: the data cannot be opened. What is wrong with single images or
            labels is a finding.
        ExportError: the page cannot be written.
    """
    source = open_source(data)
    other = None if against is None else open_source(against)
    audit = run_audit(source, other, progress=progress)
    if out is not None:
        write_atomically(out, render(audit).encode())
    return audit
