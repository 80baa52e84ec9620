"""List of the commands, each of which is imported when it is called.

The imports of all commands together take longer than many a command.
"""

import shutil
import textwrap
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

PANELS = {
    "Predict": {
        "demo": "Predict a small scene that comes with rooftrace, to see what it writes.",
        "predict": "Predict buildings in images: mask, polygons, density and preview.",
        "catalogue": "Predict buildings in many scenes, as one layer without duplicates.",
        "video": "Draw the buildings of a video or a camera into it, and write a table of its "
        "frames.",
    },
    "Map": {
        "vectorize": "Convert a mask or a raster of probabilities to polygons.",
        "heights": "Measure how tall buildings are, from a surface model or a laser scan.",
        "density": "Measure the built-up share and the number, size and distance of buildings.",
        "compare": "Compare two layers of buildings: find which are new, gone, changed, moved, "
        "split or merged.",
    },
    "Data": {
        "inspect": "Audit training data: its figures, its problems, and what to do first.",
        "split": "Divide labelled images into training, validation and test parts.",
        "convert": "Convert labelled data to another kind, or a vector file to another format.",
        "label": "Choose images to label, push them to Label Studio, and pull labels back.",
    },
    "Train": {
        "train": "Train a model on folders of image/mask pairs, or search for the best "
        "configuration.",
        "finetune": "Fine-tune a model on your own labelled images, and compare it with the start "
        "model.",
        "fit": "Fit a model to labelled data: its threshold and calibration; or the weights of an "
        "ensemble.",
    },
    "Evaluate": {"evaluate": "Compare models, or predictions of other tools, with labels."},
    "Serve": {
        "serve": "Serve a prediction page, a map of results, live video, and a REST API with jobs.",
        "export": "Export a model to ONNX, OpenVINO or fAIr and check its output; or write its "
        "card.",
        "import": "Make a model of the weights or the ONNX graph of another program.",
        "mcp": "Offer prediction, audit, evaluation and measurement to AI assistants as tools.",
        "doctor": "Check the installation, and test and measure each inference engine.",
    },
}
"""First paragraph of each command's help, by the title under which `rooftrace --help` lists it."""

COMMANDS = tuple(name for purposes in PANELS.values() for name in purposes)
"""Names of all commands, in the order of `rooftrace --help`."""

PLACES = {
    "demo": "predict.demo", "heights": "predict.heights", "inspect": "data.inspect",
    "split": "data.split", "convert": "data.convert", "train": "training.train",
    "finetune": "training.finetune", "fit": "evaluate.fit", "export": "models.export",
    "import": "models.import_model", "doctor": "models.doctor",
}  # fmt: skip
"""Module and function of commands that are not the function of their name in a module of it."""

_OPENS_NO_IMAGE = {"import", "doctor", "mcp"}
"""Commands that need neither images nor polygons. They would only start later with libraries for
them; a command that is missing here does nothing else wrong."""


_TEXT_AT = 14
"""Column in which the purposes of commands begin."""


class CommandList(TyperGroup):
    """Names and purposes of all commands; only the command that is called gets its options."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=purpose, rich_help_panel=panel)
            for panel, purposes in PANELS.items()
            for name, purpose in purposes.items()
        }

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help as plain lines, as that of a command; rich takes as long to import."""
        del formatter
        width = min(shutil.get_terminal_size().columns, 100)
        text = ["Usage: rooftrace COMMAND [OPTIONS]", "", self.help or "", ""]
        for panel, purposes in PANELS.items():
            text.append(f"{panel}:")
            for name, purpose in purposes.items():
                head, below = f"  {name}".ljust(_TEXT_AT), " " * _TEXT_AT
                text.append(
                    textwrap.fill(purpose, width, initial_indent=head, subsequent_indent=below)
                )
            text.append("")
        text += ["Options:", "  --version".ljust(_TEXT_AT) + "Print the version.", ""]
        typer.echo("\n".join([*text, "Options of a command: rooftrace COMMAND --help"]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name, the command with its options, and the arguments after the name."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load_command(name), rest


def command_name(arguments: Sequence[str]) -> str:
    """Return the name of the command that the arguments call, such as `rooftrace predict`."""
    return f"rooftrace {arguments[0]}" if arguments and arguments[0] in COMMANDS else "rooftrace"


def import_command(arguments: Sequence[str]) -> None:
    """Import the module of the command that the arguments call, if they begin with one.

    The packages that read and write images and polygons are imported, too, unless the command opens
    none. One that cannot be loaded is then reported before any work, and those that they import in
    turn, for functions that are not used, are still hidden by the caller.
    """
    if not arguments or arguments[0] not in COMMANDS:
        return
    _module(arguments[0])
    if arguments[0] in _OPENS_NO_IMAGE or not {"--help", "--help-all"}.isdisjoint(arguments):
        return
    import rasterio  # noqa: F401

    if arguments[0] != "predict":  # which imports it while the network is compiled
        import pyogrio  # noqa: F401


@cache
def load_command(name: str) -> Any:
    """Return a command of `COMMANDS` with its options and subcommands, as typer makes it."""
    from rooftrace.cli.option_groups import CheckedCommand

    function = PLACES.get(name, f"{name}.{name}").partition(".")[2]
    command = getattr(_module(name), function)
    if isinstance(command, typer.Typer):
        return get_group(command)
    application = typer.Typer(add_completion=False)
    application.command(name, cls=CheckedCommand)(command)
    return get_command(application)


def other_options(name: str) -> dict[str, tuple[str, str]]:
    """Return what remedies say for the options that a command does not have.

    Many functions serve several commands, and name the option that most of them have.

    Returns:
        Terms for `in_terms`: keys of data for commands that read labelled data, and options
        of `rooftrace predict`.
    """
    from rooftrace.labels.config import SourceConfig

    options, predicts = _options(name), _options("predict")
    command = "rooftrace predict"
    terms = {one: (f"{command} --{one}", f"{command} --{one} {{}}") for one in predicts - options}
    if "set" in options:
        for key in SourceConfig.model_fields:
            option = key.removesuffix("_m").replace("_", "-")
            if option not in options and "kind" in options:
                terms[option] = f"--set {key}=…", f"--set {key}={{}}"
            elif option not in options:
                terms[option] = f"the key {key} of the data", f"the key {key} of the data: {{}}"
    return terms


def _options(name: str) -> set[str]:
    """Return the names of a command's options, and of its subcommands, without dashes."""
    waiting, found = [load_command(name)], set()
    while waiting:
        command = waiting.pop()
        names = [one for parameter in command.params for one in parameter.opts]
        found |= {one[2:] for one in names if one.startswith("--")}
        waiting += getattr(command, "commands", {}).values()
    return found


def _module(name: str) -> ModuleType:
    return import_module(f"rooftrace.cli.{PLACES.get(name, name).partition('.')[0]}")
