"""`python -m town [FOLDER]` in `tests`: write the demo scene, by default where it is shipped."""

import sys
from importlib.resources import files
from pathlib import Path

from town.scene import write_demo


def main(arguments: list[str]) -> None:
    """Write the demo scene into the folder named first, or into the package's assets."""
    default = Path(str(files("rooftrace").joinpath("assets")))
    for path in write_demo(Path(arguments[0]) if arguments else default):
        sys.stdout.write(f"{path} ({path.stat().st_size / 1e6:.2f} MB)\n")


if __name__ == "__main__":
    main(sys.argv[1:])
