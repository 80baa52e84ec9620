"""Train and finish the bundled models: every command of docs/default-model.md, one after the other.

    python recipes/default_model.py work/bundled

writes `default.rooftrace` and `accurate.json` there, as they lie in `src/rooftrace/assets`. It
needs ROOFTRACE_DATA, the extras `train` and `pretrained`, and a GPU for the two trainings (some 11
minutes on an H200; on a CPU, `gpu_train.py --device cpu` does 5 samples a second). The rest takes
about half an hour on two cores. A step whose file is there is not repeated.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

RECIPES = Path(__file__).resolve().parent
DATA, PACKS = (RECIPES.parent / "work" / name for name in ("default-data", "packs"))

Step = tuple[Path, list[str | Path]]
"""A file, and the arguments of Python that make it."""


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for made, arguments in steps(out):
        if not made.exists():
            run(arguments)


def steps(out: Path) -> Iterator[Step]:
    """Yield the steps in their order."""
    first, second = out / "first", out / "second"
    plain, quantised, chosen, default = (
        out / f"{name}.rooftrace" for name in ("plain", "quantised", "chosen", "default")
    )
    train: list[str | Path] = [RECIPES / "gpu_train.py", PACKS]
    yield DATA / "generated", [RECIPES / "default_data.py", DATA]
    yield PACKS / "part-0.zip", [RECIPES / "gpu_pack.py", DATA, PACKS]
    yield weights(first), [
        *train, first, "--start", RECIPES / "weights" / "start.safetensors", "--seed", "2",
        "--lr", "8e-4", "--seconds", "140", "--end-rate", "1", "--parts", "2",
    ]  # fmt: skip
    yield weights(second), [
        *train, second, "--start", weights(first), "--seed", "12", "--lr", "8e-4",
        "--seconds", "510",
    ]  # fmt: skip
    yield plain, [RECIPES / "gpu_bundle.py", plain, weights(second)]
    yield quantised, [RECIPES / "bundled_int8.py", plain, quantised]
    yield chosen, [RECIPES / "bundled_threshold.py", quantised, chosen]
    accurate, recipe = out / "accurate.json", RECIPES / "default.toml"
    yield accurate, [RECIPES / "bundled_threshold.py", chosen, accurate]
    yield default, [RECIPES / "bundled_fingerprint.py", chosen, recipe, default]


def weights(training: Path) -> Path:
    """Return the weights of a training in a folder."""
    return training / "mean.safetensors"


def run(arguments: list[str | Path]) -> None:
    """Run a step; one that fails ends the script with its exit status."""
    print("+ python", *arguments, flush=True)
    command = [sys.executable, *map(str, arguments)]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
