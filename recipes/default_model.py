"""Train and finish the bundled models: every command of docs/default-model.md, one after the other.

    python recipes/default_model.py work/bundled

writes `default.rooftrace` and `accurate.json` there, as they lie in `src/rooftrace/assets`. It
needs ROOFTRACE_DATA and the extras `train` and `pretrained`, and takes about three hours on two
cores. A run that was stopped goes on where it stopped: a step whose file is there is not repeated,
and a training resumes. What follows the folder is given to each training, such as
`--set epochs=1`, to try the steps in minutes; a training resumes only with the same settings.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

RECIPES = Path(__file__).resolve().parent
DATA, RUNS = (RECIPES.parent / name for name in ("work/default-data", "runs"))
"""Folders in which the recipes look for the prepared data and for the earlier runs."""

AFTER_SHARE = "0.6"
"""Share of the last training's weights in the bundled network; the others are those before it."""

Step = tuple[Path, list[str | Path]]
"""A file, and the arguments of Python that make it."""


def main() -> None:
    out, settings = Path(sys.argv[1]), sys.argv[2:]
    out.mkdir(parents=True, exist_ok=True)
    if not (DATA / "generated").is_dir():
        run([RECIPES / "default_data.py", DATA])
    for name in ("default-first", "default-second", "default"):
        if not best(name).exists():
            resumed = ["--resume"] if (RUNS / name / "checkpoints" / "last.ckpt").is_file() else []
            run(["-m", "rooftrace", "train", RECIPES / f"{name}.toml", "-o", RUNS / name,
                 *resumed, *settings])  # fmt: skip
    for made, arguments in steps(out):
        if not made.exists():
            run(arguments)


def best(name: str) -> Path:
    """Return the bundle of the best epoch of a training."""
    return RUNS / name / "best_iou.rooftrace"


def steps(out: Path) -> Iterator[Step]:
    """Yield the steps after the trainings."""
    mean, quantised, chosen = (
        out / f"{name}.rooftrace" for name in ("mean", "quantised", "chosen")
    )
    before = best("default-second")
    yield mean, [RECIPES / "mean_of_weights.py", best("default"), before, AFTER_SHARE, mean]
    yield quantised, [RECIPES / "bundled_int8.py", mean, quantised]
    yield chosen, [RECIPES / "bundled_threshold.py", quantised, chosen]
    accurate, default = out / "accurate.json", out / "default.rooftrace"
    yield accurate, [RECIPES / "bundled_threshold.py", chosen, accurate]
    recipe = RECIPES / "default.toml"
    yield default, [RECIPES / "bundled_fingerprint.py", chosen, recipe, default]


def run(arguments: list[str | Path]) -> None:
    """Run a step; one that fails ends the script with its exit status."""
    print("+ python", *arguments, flush=True)
    command = [sys.executable, *map(str, arguments)]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
