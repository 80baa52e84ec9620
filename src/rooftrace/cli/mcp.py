"""`rooftrace mcp`: commands as tools for assistants, by the Model Context Protocol.

A tool has the arguments and options of its command, with the same descriptions. Each call is a
process of `rooftrace COMMAND --json`, whose object is the result. https://modelcontextprotocol.io
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rooftrace.core.errors import ConfigError, MissingExtraError, RooftraceError

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext
    from mcp_types import (
        CallToolRequestParams,
        CallToolResult,
        ListToolsResult,
        PaginatedRequestParams,
    )
    from typer.core import TyperArgument, TyperOption

TOOLS = ("predict", "inspect", "evaluate", "compare", "density", "heights")
"""Commands that are tools."""

_MAX_TEXT = 30_000
"""Maximum number of characters of a result, so that a run of many images does not fill the context
of an assistant."""

_INSTRUCTIONS = (
    "rooftrace maps buildings in overhead imagery. Paths are those of the machine of this server. "
    "predict writes masks, polygons and a preview into a folder; inspect checks labelled data; "
    "evaluate compares predictions with labels; compare finds changed buildings; density and "
    "heights measure buildings that predict has written. An error says what to change."
)


def mcp() -> None:
    """Offer prediction, audit, evaluation and measurement to AI assistants as tools.

    They start this command themselves, and speak the Model Context Protocol with it over stdio.
    """
    with MissingExtraError.on_import("mcp", "rooftrace mcp", "mcp"):
        import anyio
        import mcp as package  # noqa: F401
    anyio.run(_serve)


async def _serve() -> None:
    from mcp.server import Server
    from mcp.server.stdio import stdio_server

    server = Server(
        "rooftrace",
        version=metadata.version("rooftrace"),
        instructions=_INSTRUCTIONS,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
    )
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())


async def _list_tools(_: Any, page: PaginatedRequestParams | None) -> ListToolsResult:
    from mcp_types import ListToolsResult, Tool

    from rooftrace.cli.commands import load_command

    return ListToolsResult(
        tools=[
            Tool(name=name, description=load_command(name).help, input_schema=input_schema(name))
            for name in TOOLS
        ]
    )


async def _call_tool(
    context: ServerRequestContext[Any], call: CallToolRequestParams
) -> CallToolResult:
    """Run a command; an error of the command is a result that the assistant can read."""
    from mcp_types import CallToolResult, TextContent

    try:
        arguments = command_line(call.name, call.arguments or {})
    except RooftraceError as error:
        code, text = error.exit_code, json.dumps({"error": error.to_json()})
    else:
        code, text = await _run(arguments, context)
    if is_long := len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}… (cut; the files that it names hold all figures)"
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=None if is_long else json.loads(text),
        is_error=code != 0,
    )


async def _run(arguments: list[str], context: ServerRequestContext[Any]) -> tuple[int, str]:
    """Run a command to its end or until the call is cancelled, and report its progress.

    Returns:
        Its exit code, and the JSON object that it has printed, or one with its last lines.
    """
    import anyio
    from anyio.streams.text import TextReceiveStream

    said: deque[str] = deque(maxlen=20)
    printed: list[str] = []

    async def report(stream: Any) -> None:
        rest = ""
        async for chunk in TextReceiveStream(stream, errors="replace"):
            *lines, rest = (rest + chunk).split("\n")
            for line in lines:
                if line.startswith('{"progress"'):
                    step = json.loads(line)["progress"]
                    await context.session.report_progress(
                        step["done"], step["total"] or None, step["text"]
                    )
                else:
                    said.append(line)

    command = [sys.executable, "-m", "rooftrace", *arguments]
    env, stdin = {**os.environ, "ROOFTRACE_PROGRESS": "json"}, subprocess.DEVNULL
    async with await anyio.open_process(command, stdin=stdin, env=env) as child:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(report, child.stderr)
            assert child.stdout is not None
            printed += [chunk async for chunk in TextReceiveStream(child.stdout)]
        code = await child.wait()
    text = "".join(printed).strip()
    return code, text or json.dumps({"error": {"message": "\n".join(said)}})


def input_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of the arguments and options of a command."""
    from pydantic import TypeAdapter

    properties, required = {}, []
    for parameter in _parameters(name):
        schema = TypeAdapter(parameter.type_descriptor.annotation).json_schema()
        schema.pop("format", None)
        for limit, value in (("minimum", parameter.min), ("maximum", parameter.max)):
            if value is not None:
                schema[limit] = value
        if isinstance(parameter.default, bool | int | float | str):
            schema["default"] = parameter.default
        properties[str(parameter.name)] = schema | {"description": parameter.help or ""}
        if parameter.required:
            required.append(str(parameter.name))
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def command_line(name: str, given: Mapping[str, Any]) -> list[str]:
    """Return the arguments of `rooftrace` for a call."""
    if name not in TOOLS:
        raise ConfigError(f"There is no tool {name!r}.", remedy=f"Use one of {', '.join(TOOLS)}.")
    parameters = {str(parameter.name): parameter for parameter in _parameters(name)}
    options, files = [], []
    for key, value in given.items():
        parameter = parameters.get(key)
        if parameter is None:
            raise ConfigError(
                f"{name} has no argument {key!r}.", remedy=f"Use: {', '.join(parameters)}."
            )
        values = [str(one) for one in (value if isinstance(value, list) else [value])]
        if value is None:
            continue
        if parameter.param_type_name == "argument":
            files += values
        elif isinstance(value, bool):
            options += parameter.opts[-1:] if value else parameter.secondary_opts[-1:]
        else:
            options += [f"{parameter.opts[-1]}={one}" for one in values]
    return [name, *options, "--json", "--", *files]


def _parameters(name: str) -> list[TyperArgument | TyperOption]:
    """Return the parameters of a command that its help lists."""
    from rooftrace.cli.commands import load_command

    return [p for p in load_command(name).params if not p.hidden and p.name != "as_json"]
