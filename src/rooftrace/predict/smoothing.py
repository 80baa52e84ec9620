"""Smooth the probabilities of a video's frames over time.

The smoothed probabilities s are updated with the probabilities p of each frame:
s ← s + a (p − s) with a = 1 − exp(−Δt / τ). This is a first-order low-pass filter. The time
constant τ is in seconds, so that the result does not depend on frame rate and stride. s is first
warped by dense optical flow (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search").
"""

from math import exp
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.predict.options import Smoothing

_FLOW_PX = 512
"""Longer side in pixels of the image on which flow is estimated."""

_MAX_DIFFERENCE = 24.0
"""Difference in grey levels from the warped previous frame above which a pixel shows other ground.

Noise and compression cause smaller differences; ground that was hidden before causes larger ones.
"""

_MIN_FLOW_PX = 48
"""Minimum side in pixels for optical flow.

Below 32 px (a patch of 8 px on a quarter of the frame) OpenCV reads out of bounds and crashes.
"""

_CUT_PX = 96
"""Longer side in pixels of the image on which cuts are detected."""

_MIN_CORRELATION = 0.45
"""Correlation with the warped previous frame below which the scene has changed."""

_FLAT = 2.0
"""Standard deviation in grey levels below which a frame has no usable structure."""

Frame = NDArray[np.uint8]
"""(y, x, 3) RGB or (y, x) grey or probability image, 0..255."""

Evidence = NDArray[np.float32]
"""(y, x) smoothed probability in 255ths."""


class Smoother:
    """Filter that receives the frames of a video in order, and follows the moving ground.

    It does so also through frames that the network skips. Where the ground was not visible before
    (at the border, behind moving objects), only the current frame is used.

    Args:
        kind: Kind of smoothing; `none` keeps the latest output of the network.
        time_constant_s: Time in seconds after which 63 % of a change is visible.
    """

    def __init__(self, kind: Smoothing, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._flow: Any = None
        if kind == "flow":
            self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._grey: Frame | None = None
        self._known: Evidence | None = None
        self._fed_s = 0.0

    def feed(self, rgb: Frame, evidence: Frame | None, seconds: float, *, cut: bool) -> Evidence:
        """Return the smoothed probability of a frame.

        Args:
            rgb: (y, x, 3) frame.
            evidence: (y, x) output of the network in 255ths; None if the frame was skipped.
            seconds: Time of the frame in seconds.
            cut: Whether the frame shows another scene than the previous one.

        Returns:
            (y, x) probability in 255ths, read-only; 0 before the first output of the network.
        """
        before = self._grey
        grey = self._grey = None if self._flow is None else _grey(rgb, _FLOW_PX)
        state = None if cut else self._known
        if self._flow is None or grey is None or before is None or state is None:
            if evidence is not None:
                state, self._fed_s = evidence.astype(np.float32), seconds
            self._known = state
            return np.zeros(rgb.shape[:2], np.float32) if state is None else state
        # Flow from each pixel of this frame to its position in the previous one.
        flow = self._flow.calc(grey, before, None)
        warped = _warped(state, _enlarged(flow, rgb.shape[:2]))
        if evidence is not None:
            passed_s, constant_s = max(seconds - self._fed_s, 0.0), self._time_constant_s
            share = 1 - exp(-passed_s / constant_s) if constant_s > 0 else 1.0
            cv2.accumulateWeighted(evidence, warped, share)
            unknown, size = _unknown(grey, before, flow), (rgb.shape[1], rgb.shape[0])
            new = cv2.resize(unknown.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            cv2.copyTo(evidence.astype(np.float32), new, warped)
            self._fed_s = seconds
        self._known = warped
        return np.asarray(warped)


class CutFinder:
    """Detector of cuts between the scenes of a video.

    A frame belongs to the same scene as the previous frame if it correlates with the previous frame
    warped by optical flow. Gradual camera motion and changes of light therefore are not cuts.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._grey: Frame | None = None

    def is_cut(self, rgb: Frame) -> bool:
        """Return whether a frame shows another scene than the frame of the previous call."""
        grey, before = _grey(rgb, _CUT_PX), self._grey
        self._grey = grey
        if before is None:
            return False
        return _correlation(grey, before, self._flow) < _MIN_CORRELATION


def _correlation(grey: Frame, before: Frame, flow: Any) -> float:
    """Return the correlation of a frame with the warped previous frame, -1..1."""
    if max(float(grey.std()), float(before.std())) < _FLAT:
        # Neither frame has structure, for example because both are black.
        return 1.0
    warped = _warped(before, flow.calc(grey, before, None)).astype(np.float32)
    a, b = grey - grey.mean(dtype=np.float64), warped - warped.mean(dtype=np.float64)
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-6))


def _grey(rgb: Frame, longest_px: int) -> Frame:
    """Return the (y, x) grey levels of a frame, reduced to `longest_px`.

    Both sides are at least `_MIN_FLOW_PX`, as optical flow requires.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = max(round(width * scale), _MIN_FLOW_PX), max(round(height * scale), _MIN_FLOW_PX)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _enlarged(flow: NDArray[np.float32], shape_yx: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the flow resampled to a larger frame, in pixels of that frame."""
    height, width = shape_yx
    small_y, small_x = flow.shape[:2]
    if (small_y, small_x) == (height, width):
        return flow
    in_larger = flow * np.array([width / small_x, height / small_y], dtype=np.float32)
    large = cv2.resize(in_larger, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, dtype=np.float32)


def _positions(flow: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the x and y coordinates in the previous frame of each pixel."""
    height, width = flow.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    return np.add(flow[..., 0], x), np.add(flow[..., 1], y)


def _warped(values: NDArray[Any], flow: NDArray[np.float32]) -> NDArray[Any]:
    """Return values of the previous frame, warped to the current frame."""
    x, y = _positions(flow)
    # Each warp blurs the values; cubic interpolation blurs least.
    moved = cv2.remap(values, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=values.dtype)


def _unknown(grey: Frame, before: Frame, flow: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the (y, x) mask of pixels that show ground not visible in the previous frame."""
    x, y = _positions(flow)
    height, width = grey.shape
    outside = (x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)
    change = cv2.blur(cv2.absdiff(grey, _warped(before, flow)), (5, 5))
    return np.asarray(outside | (change > _MAX_DIFFERENCE))
