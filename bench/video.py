"""`rooftrace video` against a plain loop, and what smoothing does to flicker and IoU."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from common import argument_parser, by_turns, load_bundle, measure_part, rounded, say, start, warm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIZES = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920)}
_RATE = 25
_NOISE = 4.0
"""Standard deviation of a camera's noise, in grey levels; the same in all bands of a pixel."""

_MOTIONS = {
    "still": (0.0, 0.0, 0.0),
    "pan": (2.3, 0.7, 0.0),
    "fast": (6.3, 1.1, 0.0),
    "turn": (1.5, 0.5, 0.4),
}
"""Pixels to the right and down, and degrees, by which a camera moves from frame to frame."""

_SMOOTHINGS = (("none", 0.0), ("flow", 0.15), ("flow", 0.5), ("flow", 1.0))
_GSD_M = 0.4

_WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("ours", {"smoothing": "flow"}),
    "ours_none": ("ours", {"smoothing": "none"}),
    "plain": ("plain", {"polygons": True}),
    "plain_mask": ("plain", {"polygons": False}),
}


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--sizes", default="720p,1080p", help="of 360p, 720p, 1080p")
    parser.add_argument("--strides", default="1,5")
    parser.add_argument("--ways", default=",".join(_WAYS), help="rows, of these")
    parser.add_argument("--seconds", type=float, default=5.0, help="of video")
    parser.add_argument("--frames", type=int, default=75, help="of each motion, for smoothing")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    frames = round(given.seconds * _RATE)
    rows: dict[str, dict[str, Any]] = {}
    for size in given.sizes.split(","):
        source = given.work / f"pan_{size}_{frames}.mp4"
        if not source.exists():
            say(f"making {source}")
            measure_part(__file__, "make", path=source, size=size, frames=frames)
        warm(source)
        for stride in map(int, given.strides.split(",")):
            say(f"{size}, stride {stride}")
            runs = by_turns(
                given.ways.split(","), given.repeats,
                partial(_run, source=source, stride=stride, options=given), "seconds",
            )  # fmt: skip
            for way, measured in runs.items():
                rows[f"{way}_{size}_stride{stride}"] = _row(measured, frames)
    ratios = {
        name.replace("ours", f"ours/{other}", 1): {
            "speed": rounded(row["frames_per_s"] / rows[against]["frames_per_s"]),
            "memory": rounded(row["peak_rss_mb"] / rows[against]["peak_rss_mb"]),
        }
        for name, row in rows.items()
        if name.startswith("ours_") and not name.startswith("ours_none")
        for other in ("plain", "plain_mask")
        if (against := name.replace("ours", other, 1)) in rows
    }
    say("smoothing")
    smoothed = measure_part(__file__, "smoothing", model=given.model, frames=given.frames).report
    return {"frames": frames, "rows": rows, "ratios": ratios, **smoothed}


def _run(way: str, source: Path, stride: int, options: argparse.Namespace) -> dict[str, Any]:
    part, given = _WAYS[way]
    out = options.work / f"{way}.mp4"
    done = measure_part(
        __file__, part, source=source, stride=stride, model=options.model, out=out, **given
    )
    return {**done.row, "process_seconds": done.seconds}


def _row(runs: list[dict[str, Any]], frames: int) -> dict[str, Any]:
    inside = [run["seconds"] for run in runs]
    best = min(runs, key=lambda run: run["seconds"])
    return {
        "seconds_min": rounded(min(inside)),
        "seconds_median": rounded(median(inside)),
        "frames_per_s": rounded(frames / min(inside)),
        "realtime": rounded(frames / _RATE / min(inside)),
        "process_seconds": rounded(best["process_seconds"]),
        "peak_rss_mb": max(run["peak_rss_mb"] for run in runs),
        "built_up_share": rounded(best["built_up_share"]),
    }


def make(path: str, size: str, frames: int) -> dict[str, Any]:
    """A camera that moves over a generated town, as H.264."""
    from fractions import Fraction

    import numpy as np

    from rooftrace.io.video import VideoFrame, VideoInfo, video_sink
    from town import generate_scene

    (height, width), (right, down, _) = _SIZES[size], _MOTIONS["pan"]
    # What the camera passes over, and a rim.
    shape_yx = (height + int(down * frames) + 200, width + int(right * frames) + 200)
    ground = np.ascontiguousarray(np.moveaxis(generate_scene(19, shape_yx, _GSD_M).image, 0, -1))
    camera = _Camera(ground, _SIZES[size], _MOTIONS["pan"])
    tick = Fraction(1, 12800)
    info = VideoInfo(_SIZES[size], Fraction(_RATE), tick)
    step = 12800 // _RATE
    with video_sink(Path(path), info, crf=20) as sink:
        for number in range(frames):
            sink.add(VideoFrame(camera.frame(number), number, number * step, step, number / _RATE))
    return {}


def ours(source: str, out: str, stride: int, smoothing: Any, model: str | None) -> dict[str, Any]:
    """`rooftrace video`, its model loaded before."""
    from rooftrace.flows.video import run_video
    from rooftrace.predict.options import VideoOptions
    from rooftrace.predict.predictor import load

    predictor = load(model)
    options = VideoOptions(stride=stride, smoothing=smoothing)
    report = run_video(source, Path(out), predictor=predictor, options=options)
    return {"seconds": report.seconds, "built_up_share": report.built_up_share}


def plain(source: str, out: str, stride: int, polygons: bool, model: str | None) -> dict[str, Any]:
    """The loop that one writes first; without polygons it asks for the mask alone."""
    import cv2
    import numpy as np

    from rooftrace.predict.options import SceneOptions
    from rooftrace.predict.predictor import load

    predictor = load(model)
    started = time.perf_counter()
    capture = cv2.VideoCapture(source)
    width, height = (
        int(capture.get(what)) for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(out, code, capture.get(cv2.CAP_PROP_FPS), (width, height))
    options = None if polygons else SceneOptions(outputs=("mask",))
    shares, number = 0.0, 0
    mask = np.zeros((height, width), dtype=bool)
    while True:
        found, frame = capture.read()
        if not found:
            break
        if number % stride == 0:
            image = np.moveaxis(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), -1, 0)
            mask = predictor.predict(image, options=options).mask.data == 1
        shares += float(mask.mean())
        painted = frame.copy()
        painted[mask] = (0, 196, 255)
        writer.write(cv2.addWeighted(painted, 0.35, frame, 0.65, 0))
        number += 1
    writer.release()
    return {"seconds": time.perf_counter() - started, "built_up_share": shares / max(number, 1)}


def smoothing(model: str | None, frames: int) -> dict[str, Any]:
    """Flicker on the ground and IoU with the truth, of each way to smooth, for each motion."""
    import numpy as np

    from rooftrace.predict.predictor import Predictor
    from town import generate_scene

    from rooftrace.engines.select import load_engine  # isort: skip

    bundle = load_bundle(model)
    predictor = Predictor(bundle, load_engine(bundle))
    scene = generate_scene(19, (1100, 1500), _GSD_M)
    ground, truth = np.ascontiguousarray(np.moveaxis(scene.image, 0, -1)), scene.mask()
    figures: dict[str, dict[str, Any]] = {}
    for name, motion in _MOTIONS.items():
        camera = _Camera(ground, _SIZES["360p"], motion, truth)
        shown = [camera.frame(number) for number in range(frames)]
        scores = [_score(predictor, frame) for frame in shown]
        for stride in (1, 5):
            for kind, constant_s in _SMOOTHINGS:
                reported = _judge(camera, shown, scores, stride, kind, constant_s, bundle)
                figures[f"{name}_stride{stride}_{kind}_{constant_s:g}s"] = reported
                say(f"{name} stride {stride} {kind} {constant_s:g} s: {reported}")
    return {"smoothing": figures}


def _judge(
    camera: _Camera,
    shown: list[NDArray[np.uint8]],
    scores: list[NDArray[np.uint8]],
    stride: int,
    kind: Any,
    constant_s: float,
    bundle: Any,
) -> dict[str, float]:
    import numpy as np

    from rooftrace.predict.smoothing import Smoother

    smoothed = Smoother(kind, constant_s)
    level = 255 * bundle.spec.threshold
    flicker: list[float] = []
    both = either = 0
    before: tuple[NDArray[np.uint8], ...] | None = None
    for number, (frame, score) in enumerate(zip(shown, scores)):
        said = None if number % stride else score
        mask = smoothed.feed(frame, said, number / _RATE, cut=False) >= level
        truth = camera.truth(number)
        both += int((mask & truth).sum())
        either += int((mask | truth).sum())
        # On the ground, where what a frame says of a place stays in its place.
        now = tuple(camera.on_ground(one, number) for one in (mask, truth, np.ones_like(mask)))
        if before is not None:
            same = (now[2] & before[2]).astype(bool) & (now[1] == before[1])
            flicker.append(float((now[0] != before[0])[same].mean()))
        before = now
    return {
        "flicker_percent": rounded(100 * float(np.mean(flicker))),
        "iou": rounded(both / either),
    }


def _score(predictor: Any, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import numpy as np

    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.predict.pipeline import run
    from rooftrace.predict.plan import plan_scene

    source = ArraySource(np.moveaxis(frame, -1, 0))
    spec, score = predictor.bundle.spec, np.empty(frame.shape[:2], dtype=np.uint8)
    for block in run(plan_scene(source, spec), predictor.engine):
        score[block.window.slices()] = block.score
    return score


class _Camera:
    """Moves over a picture of the ground.

    Args:
        ground: (y, x, 3) picture of the ground.
        shape_yx: Height and width of the frames.
        motion: See `_MOTIONS`.
        truth: (y, x) 1 where there is a building.
    """

    def __init__(
        self,
        ground: NDArray[np.uint8],
        shape_yx: tuple[int, int],
        motion: tuple[float, float, float],
        truth: NDArray[np.uint8] | None = None,
    ) -> None:
        import numpy as np

        self._ground, self._shape, self._motion, self._truth = ground, shape_yx, motion, truth
        self._noise = np.random.default_rng(0)

    def frame(self, number: int) -> NDArray[np.uint8]:
        import cv2
        import numpy as np

        seen = self._seen(self._ground, number, cv2.INTER_LINEAR).astype(np.float32)
        seen += self._noise.normal(0, _NOISE, (*self._shape, 1))
        return np.asarray(seen.clip(0, 255), dtype=np.uint8)

    def truth(self, number: int) -> NDArray[np.bool_]:
        import cv2
        import numpy as np

        return np.asarray(self._seen(self._truth, number, cv2.INTER_NEAREST) > 0)

    def on_ground(self, values: NDArray[np.bool_], number: int) -> NDArray[np.uint8]:
        """Return the values of a frame on each pixel of the ground; 0 where it is not visible."""
        import cv2
        import numpy as np

        height, width = self._ground.shape[:2]
        placed = cv2.warpAffine(
            values.view(np.uint8), self._to_ground(number), (width, height),
            flags=cv2.INTER_NEAREST,
        )  # fmt: skip
        return np.asarray(placed, dtype=np.uint8)

    def _seen(self, ground: Any, number: int, how: int) -> Any:
        import cv2

        height, width = self._shape
        return cv2.warpAffine(
            ground, self._to_ground(number), (width, height), flags=how | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip

    def _to_ground(self, number: int) -> NDArray[np.float64]:
        """(2, 3) from a frame's x and y to the ground's: turned about the frame's middle, moved."""
        import numpy as np

        right, down, degrees = (number * each for each in self._motion)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        x, y = self._shape[1] / 2, self._shape[0] / 2
        return np.array(
            [[c, -s, x - c * x + s * y + 100 + right], [s, c, y - s * x - c * y + 100 + down]]
        )


if __name__ == "__main__":
    start(main, make, ours, plain, smoothing)
