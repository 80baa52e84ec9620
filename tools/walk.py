"""Count the functions and files of rooftrace that one call passes through.

A reader follows a call from function to function, so the number of distinct functions that run is a
measure of what he must hold in his head. `sys.setprofile` notes them in all threads, from the body
of the command, method or route on; work in other processes is not seen.

    python tools/walk.py                      # predict on the command line, in Python, over the API
    python tools/walk.py predict --list       # and the functions, by file
    python tools/walk.py --source ../other/src
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

WALKS = {"predict": (450, 45), "python": (320, 32), "post": (320, 36)}
"""Maximum number of functions and of files that each walk should take."""


class Tracer:
    """Notes each function of a package that is called while `recording` is true.

    Args:
        package: Folder of the package; calls of other code are not noted.
        begin: File and function whose call switches the recording on, such as
            `("cli/predict.py", "predict")`; None to switch it on by hand.
    """

    def __init__(self, package: Path, begin: tuple[str, str] | None = None) -> None:
        self.recording = False
        self._package = f"{package}/"
        self._begin = begin
        self._codes: set[CodeType] = set()
        # Threads that exist already are not followed, so this comes before any of them.
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def functions(self) -> list[tuple[str, str]]:
        """Return file and qualified name of each function.

        Bodies of modules and classes, which an import runs, and comprehensions are none.
        """
        return sorted(
            (code.co_filename.removeprefix(self._package), code.co_qualname)
            for code in self._codes
            if code.co_flags & inspect.CO_NEWLOCALS and not code.co_name.startswith("<")
        )

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(self._package):
            return
        if (
            self._begin is not None
            and code.co_name == self._begin[1]
            and code.co_filename == self._package + self._begin[0]
        ):
            self.recording = True
        if self.recording:
            self._codes.add(code)


def walk_predict(package: Path, scene: Path, folder: Path) -> Tracer:
    """Run `rooftrace predict` on a scene."""
    tracer = Tracer(package, ("cli/predict.py", "predict"))
    from rooftrace.cli import main

    try:
        main(["predict", str(scene), "-o", str(folder)])
    except SystemExit as stop:
        if stop.code:
            raise
    return tracer


def walk_python(package: Path, scene: Path, folder: Path) -> Tracer:
    """Predict a scene with a loaded `Predictor`."""
    tracer = Tracer(package)
    import rooftrace

    predictor = rooftrace.load()
    tracer.recording = True
    predictor.predict(scene)
    tracer.recording = False
    return tracer


def walk_post(package: Path, scene: Path, folder: Path) -> Tracer:
    """Send a tile to `POST /v1/predict` of a server that has answered a request before."""
    tracer = Tracer(package)
    import numpy as np
    import rasterio
    from PIL import Image
    from starlette.testclient import TestClient

    create_server: Callable[..., Any] = importlib.import_module(
        "rooftrace.app.server"
    ).create_server
    service: Callable[..., Any] = importlib.import_module("rooftrace.service.service").Service
    import rooftrace

    with rasterio.open(scene) as dataset:
        pixels = np.moveaxis(dataset.read(window=((512, 1024), (512, 1024))), 0, -1)
    tile = folder / "tile.png"
    Image.fromarray(pixels[..., :3]).save(tile)
    with TestClient(create_server(service(rooftrace.load()), local=False)) as client:
        for recording in (False, True):
            tracer.recording = recording
            answer = client.post("/v1/predict", files={"file": tile.read_bytes()})
            tracer.recording = False
            answer.raise_for_status()
    return tracer


def main() -> None:
    """Run the walks, each in a process of its own, and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*WALKS, []], help="Walks; default: all")
    parser.add_argument("--list", action="store_true", help="Print the functions by file")
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="Folder of the package")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        package = options.source.resolve() / "rooftrace"
        sys.path.insert(0, str(package.parent))
        (name,) = options.names
        with tempfile.TemporaryDirectory() as temporary:
            scene = package / "assets/demo_scene.tif"
            tracer = globals()[f"walk_{name}"](package, scene, Path(temporary))
        print(json.dumps(tracer.functions()))
        return
    for name in options.names or WALKS:
        done = subprocess.run(
            [sys.executable, __file__, name, "--in-process", "--source", str(options.source)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{name}: exit {done.returncode}\n{done.stderr[-4000:]}")
        functions = json.loads(done.stdout.splitlines()[-1])
        by_file: dict[str, list[str]] = {}
        for file, function in functions:
            by_file.setdefault(file, []).append(function)
        size = f"{len(functions)} functions in {len(by_file)} files"
        print(f"{name}: {size}, wanted {WALKS[name][0]} in {WALKS[name][1]}")
        if options.list:
            for file, names in by_file.items():
                print(f"  {file} ({len(names)}): {', '.join(names)}")


if __name__ == "__main__":
    main()
