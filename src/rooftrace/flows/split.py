"""`rooftrace split`: divide a folder into parts once, and write down how."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.config import SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.data.split import Split, group_by_pattern, make_split, write_split

__all__ = ["run_split"]


def run_split(
    folder: SourceConfig,
    out: Path,
    *,
    val: float,
    test: float,
    by: Literal["image", "group"] = "image",
    group_pattern: str | None = None,
    seed: int = 0,
) -> Split:
    """Write the ids of each part to `out`.

    Args:
        folder: the data; its labels are not read.
        val, test: shares of the images.
        by: whether whole groups stay together.
        group_pattern: a regular expression whose first bracket is the group in an id; default the
            folder that the image lies in.

    Raises:
        LayoutError, DataError, ConfigError, ExportError.
    """
    if group_pattern is not None and by != "group":
        raise ConfigError(
            "--group-pattern was given, but the split is by image.", remedy="Add --by group."
        )
    source = open_source(folder)
    if group_pattern is not None:
        groups = group_by_pattern(source.ids, group_pattern)
    else:
        groups = [entry.group for entry in source.entries]
        if by == "group" and len(set(groups)) == 1:
            raise DataError(
                f"All images of {folder.path} are in one group: they lie in one folder.",
                remedy="Say what the groups are with --group-pattern, such as '^([a-z]+)_'.",
            )
    split = make_split(source.ids, groups, val=val, test=test, by=by, seed=seed)
    write_split(out, split)
    return split
