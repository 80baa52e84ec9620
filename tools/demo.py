"""Install the core into `.venv-core` and run the demo, on any system.

    python tools/demo.py -o out              # the bundled scene: rooftrace demo
    python tools/demo.py -o out my.tif       # your own: rooftrace predict my.tif

The environment is made once for each content of pyproject.toml and constraints.txt; it runs the
code of this checkout, as it is at the time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-core"
LOCK = ROOT / "constraints.txt"


def installed() -> Path:
    """Return the folder of the commands of the environment, which is made if it is missing."""
    binaries = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + LOCK.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / f".linked-{wanted[:12]}"
    if not stamp.exists():
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        # Only what the demo imports is compiled, when it is imported.
        subprocess.run(
            [*pip, "install", "--no-compile", "-c", str(LOCK), "-e", str(ROOT)], check=True
        )
        stamp.touch()
    return binaries


def main() -> None:
    """Predict the demo scene, or the images that are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", help="Images; default: the demo scene")
    parser.add_argument("-o", "--out", default="out", help="Folder for the results")
    options = parser.parse_args()
    command = ["predict", *options.images] if options.images else ["demo"]
    rooftrace = installed() / "rooftrace"
    done = subprocess.run([rooftrace, *command, "-o", options.out], check=False)
    print(f"The command rooftrace is {rooftrace}")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
