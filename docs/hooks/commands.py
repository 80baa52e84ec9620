"""Pages of the commands of `rooftrace`, made from their definitions in typer."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from typer import Context
from typer.main import get_command

from rooftrace.cli import app
from rooftrace.cli.commands import load_command


@cache
def pages() -> dict[str, str]:
    """Return Markdown by the name of the command, in the order of `rooftrace --help`."""
    root: Any = get_command(app)
    context = Context(root, info_name="rooftrace")
    return {
        name: f"# rooftrace {name}\n\n" + _describe(load_command(name), context, name, 2)
        for name in root.list_commands(context)
    }


def _describe(command: Any, parent: Context, name: str, depth: int) -> str:
    """Return the purpose, usage and options of a command and of its subcommands."""
    context = Context(command, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    sections = [command.help or "", f"```text\n{usage}\n```"]
    records = [(p, p.get_help_record(context)) for p in command.get_params(context)]
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        rows = [record for p, record in records if record and p.param_type_name == kind]
        if rows:
            sections.append(_table(title, rows))
    for subcommand in getattr(command, "commands", {}):
        sections.append(f"{'#' * depth} rooftrace {name} {subcommand}")
        sections.append(_describe(command.commands[subcommand], context, subcommand, depth + 1))
    return "\n\n".join(sections) + "\n"


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    head = f"| {title} | |\n|---|---|\n"
    return head + "\n".join(f"| <code>{_cell(n)}</code> | {_cell(text)} |" for n, text in rows)


def _cell(text: str) -> str:
    """Return text whose characters have no meaning in Markdown or in a table."""
    plain = escape(" ".join(text.split()), quote=False)
    return "".join(f"&#{ord(c)};" if c in "|*_`[]" else c for c in plain)
