r"""Train and finish the bundled models: the commands of docs/default-model.md in their order.

    python recipes/default_model.py work/bundled

writes `default.rooftrace` and `accurate.json` there, as they lie in `src/rooftrace/assets`. It
needs ROOFTRACE_DATA, the extras `train` and `pretrained`, and a GPU for the two trainings. A step
that is done is not repeated, and a training that was killed goes on from its checkpoint. Without a
GPU, `work/trial --device cpu --seconds 60` tries the whole, in a folder of its own.

Plan for a GPU that is lent for 15 minutes: train a student of the bundled model, which predicts
with more care than the student will, and do all the rest without the GPU.

1. Before, on CPUs: data, packs, and the weights of the bundled model as `--start` and `--teacher`:

       python recipes/default_data.py work/default-data
       python recipes/gpu_pack.py work/default-data work/packs
       python recipes/gpu_bundle.py work/packs/default.safetensors default

2. On the GPU, which needs `work/packs` (77 MB without `encoder.safetensors`; 60 MB with three
   parts), `gpu_train.py`, `gpu_atlas.py`, `gpu_colours.py`, `default.toml` and
   `src/rooftrace/models/subpixel.py`: a trial of 20 s that shows samples per second, then the
   training. 420 s leave 3 minutes of 10 for loading and validation:

       python recipes/gpu_train.py work/packs work/trial --seconds 20 --parts 1 \
           --start work/packs/default.safetensors --teacher work/packs/default.safetensors
       python recipes/gpu_train.py work/packs work/bundled/second --seconds 420 \
           --lr 8e-4 --seed 12 --start work/packs/default.safetensors \
           --teacher work/packs/default.safetensors --teacher-scales 0.5 1 1.5

   If it is cut off, the same command goes on, and `mean.safetensors` is there.
3. After, on CPUs: bring `mean.safetensors` and `figures.json` of `work/bundled/second` back, and
   run this script: it goes on with the bundle, int8, thresholds, calibrations and fingerprint,
   about half an hour on two cores.
   Compare with `default_results.py`, and replace the assets only if the model is better.

On CPUs alone the teacher's probabilities are computed once, by `gpu_teach.py`. Trainings of an hour
from good weights then take `--device cpu --side 256 --lr 5e-4 --fix-stages 3`; the mean of several
and of what they started from (`gpu_bundle.py` with several files) is better than each of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

RECIPES = Path(__file__).resolve().parent
DATA, PACKS = (RECIPES.parent / "work" / name for name in ("default-data", "packs"))
PARTS = 4
"""Number of files that the training data are packed into."""

SECONDS = 650
"""Seconds of both trainings together on an H200."""

FIRST_SHARE = 140 / 650
"""Share of the first training, at a constant rate on half of the data."""

Step = tuple[Path, list[str | Path]]
"""A file, and the arguments of Python that make it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="Of both trainings together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", default="320", help="Pixels along a side of a crop")
    parser.add_argument("--teacher", nargs="+", default=[], metavar="FILE",
                        help="Weights that the second training learns from")  # fmt: skip
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for made, arguments in steps(given):
        if not made.exists():
            run(arguments)


def steps(given: argparse.Namespace) -> Iterator[Step]:
    """Yield the steps in their order."""
    out: Path = given.out
    first, second = out / "first", out / "second"
    plain, quantised, chosen, default = (
        out / f"{name}.rooftrace" for name in ("plain", "quantised", "chosen", "default")
    )
    train: list[str | Path] = [RECIPES / "gpu_train.py", PACKS]
    options: list[str | Path] = ["--lr", "8e-4", "--device", given.device, "--side", given.side]
    yield DATA / "generated", [RECIPES / "default_data.py", DATA]
    yield (
        PACKS / f"part-{PARTS - 1}.zip",
        [RECIPES / "gpu_pack.py", DATA, PACKS, "--parts", str(PARTS)],
    )
    if not finished(second).exists():
        yield finished(first), [
            *train, first, "--start", RECIPES / "weights" / "start.safetensors", "--seed", "2",
            "--seconds", str(given.seconds * FIRST_SHARE), "--end-rate", "1",
            "--parts", str(PARTS // 2), *options,
        ]  # fmt: skip
    yield finished(second), [
        *train, second, "--start", weights(first), "--seed", "12",
        "--seconds", str(given.seconds * (1 - FIRST_SHARE)), *options,
        *(["--teacher", *given.teacher] if given.teacher else []),
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


def finished(training: Path) -> Path:
    """Return the file that a training in a folder writes last."""
    return training / "figures.json"


def run(arguments: list[str | Path]) -> None:
    """Run a step; one that fails ends the script with its exit status."""
    print("+ python", *arguments, flush=True)
    command = [sys.executable, *map(str, arguments)]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
