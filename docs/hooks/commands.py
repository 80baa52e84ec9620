"""A page of each verb of the command line, from what typer knows of it."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from typer import Context
from typer.main import get_command

from rooftrace.cli import app


@cache
def pages() -> dict[str, str]:
    """Markdown by the name of the verb, in the order of `rooftrace --help`."""
    root: Any = get_command(app)
    context = Context(root, info_name="rooftrace")
    return {
        name: f"# rooftrace {name}\n\n" + _told(root.commands[name], context, name, 2)
        for name in root.list_commands(context)
    }


def _told(command: Any, parent: Context, name: str, depth: int) -> str:
    """Purpose, usage and options of a verb, and of those below it."""
    context = Context(command, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    told = [command.help or "", f"```text\n{usage}\n```"]
    given = [(p, p.get_help_record(context)) for p in command.get_params(context)]
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        rows = [record for p, record in given if record and p.param_type_name == kind]
        if rows:
            told.append(_table(title, rows))
    for below in getattr(command, "commands", {}):
        told.append(f"{'#' * depth} rooftrace {name} {below}")
        told.append(_told(command.commands[below], context, below, depth + 1))
    return "\n\n".join(told) + "\n"


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    head = f"| {title} | |\n|---|---|\n"
    return head + "\n".join(f"| <code>{_cell(n)}</code> | {_cell(told)} |" for n, told in rows)


def _cell(text: str) -> str:
    """Text as it is, also where it holds what Markdown or a table would take for its own."""
    plain = escape(" ".join(text.split()), quote=False)
    return "".join(f"&#{ord(c)};" if c in "|*_`[]" else c for c in plain)
