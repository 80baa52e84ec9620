"""`rooftrace mcp`, driven by the client of the package `mcp`."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rooftrace.cli.commands import load_command
from rooftrace.cli.mcp import TOOLS, command_line, input_schema
from rooftrace.core.errors import ConfigError


def test_a_tool_has_the_options_that_the_help_of_its_command_lists() -> None:
    for name in TOOLS:
        schema = input_schema(name)
        listed = {p.name for p in load_command(name).params if not p.hidden} - {"as_json"}
        assert set(schema["properties"]) == listed
        assert all(one["description"] for one in schema["properties"].values()), name
        assert set(schema["required"]) <= listed
    outline = input_schema("predict")["properties"]["outline"]
    assert outline["enum"] == ["pixel", "simplified", "regular"]
    assert input_schema("predict")["properties"]["threshold"]["maximum"] == 1


def test_arguments_become_those_of_the_command() -> None:
    given = {"inputs": ["-a.tif", "b.tif"], "out": "maps", "separate": False, "mosaic": True,
             "gsd": 0.3, "models": ["x", "y"], "area": None}  # fmt: skip
    assert command_line("predict", given) == [
        "predict", "--out=maps", "--no-separate", "--mosaic", "--gsd=0.3", "--model=x", "--model=y",
        "--json", "--", "-a.tif", "b.tif",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no argument 'gsd_m'") as raised:
        command_line("predict", {"gsd_m": 1})
    assert "gsd" in raised.value.remedy
    with pytest.raises(ConfigError, match="no tool 'serve'"):
        command_line("serve", {})


def talk(conversation: Callable[[Any], Awaitable[Any]]) -> Any:
    """Start the command as an assistant does, and talk with it."""
    package = pytest.importorskip("mcp")

    async def connected() -> Any:
        server = package.StdioServerParameters(
            command=sys.executable, args=["-m", "rooftrace", "mcp"], env=dict(os.environ)
        )
        # Its default was captured when the package was imported, perhaps by another test's capture.
        transport = package.stdio_client(server, errlog=sys.__stderr__)
        async with package.Client(transport) as client:
            return await conversation(client)

    return asyncio.run(asyncio.wait_for(connected(), 120))


@pytest.mark.campaign
def test_an_assistant_lists_the_tools_predicts_and_measures(tmp_path: Path) -> None:
    from rooftrace.io.files import demo_scene_path

    steps: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append((done, total))

    async def conversation(client: Any) -> Any:
        listed = await client.list_tools()
        given = {"inputs": [str(demo_scene_path())], "out": str(tmp_path / "out")}
        predicted = await client.call_tool("predict", given, progress_callback=progress)
        (image,) = json.loads(predicted.content[0].text)["outputs"]
        places = {"inputs": [image["mask"]], "out": str(tmp_path / "cells"), "cell": 200}
        measured = await client.call_tool("density", places)
        wrong = await client.call_tool("predict", {"inputs": ["no.tif"], "out": str(tmp_path)})
        return listed, predicted, image, measured, wrong

    listed, predicted, image, measured, wrong = talk(conversation)
    assert [tool.name for tool in listed.tools] == list(TOOLS)
    assert not predicted.is_error
    assert predicted.structured_content["outputs"] == [image]
    assert image["buildings"] > 900
    assert steps
    assert steps[-1][0] == steps[-1][1]
    assert not measured.is_error, measured.content
    assert list(tmp_path.glob("cells*"))
    assert wrong.is_error
    error = json.loads(wrong.content[0].text)["error"]
    assert "no.tif" in error["message"]
    assert error["remedy"]
