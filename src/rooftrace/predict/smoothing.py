"""What frames of a video say, steadied over time.

Each frame's probabilities p are mixed into what is known of the frames before,
s ← s + a (p − s) with a = 1 − exp(−Δt / τ): a first-order low-pass filter, whose time constant τ is
in seconds, so that it is the same at any frame rate and stride. Where the camera moves, s is first
carried along with the ground by dense optical flow (Kroeger et al. 2016, "Fast Optical Flow using
Dense Inverse Search").
"""

from __future__ import annotations

from math import exp
from typing import Any, Literal, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SMOOTHINGS",
    "CutFinder",
    "ExponentialSmoother",
    "FlowSmoother",
    "Smoother",
    "Smoothing",
    "smoother",
]

Smoothing = Literal["none", "exponential", "flow"]

SMOOTHINGS: tuple[Smoothing, ...] = get_args(Smoothing)

_FLOW_PX = 512
"""The longer side of what flow is estimated on."""

_UNLIKE = 24.0
"""Grey levels between a frame and the one before, carried along, from which the pixel is not taken
for the same ground: noise and compression stay below, what was hidden does not."""

_LEAST_PX = 48
"""Below 32, a patch of 8 on a quarter of the frame, OpenCV's optical flow reads beyond its memory
and crashes."""

_GLANCE_PX = 96
_ALIKE = 0.45
"""Correlation of a frame with the one before, carried along, below which the scene has changed."""

_FLAT = 2.0
"""Standard deviation, in grey levels, below which a frame shows nothing that could be followed."""

Frame = NDArray[np.uint8]
Evidence = NDArray[np.float32]


class Smoother(Protocol):
    """Takes the frames of a video in their order."""

    def feed(self, rgb: Frame, evidence: Frame | None, seconds: float, *, cut: bool) -> Evidence:
        """What is believed of a frame.

        Args:
            rgb: (y, x, 3) the frame.
            evidence: (y, x) what the network says of it, in 255ths; None where it was not asked.
            seconds: when the frame is shown.
            cut: whether the frame shows another scene than the one before.

        Returns:
            (y, x) in 255ths; not to be written to. Zeros before the first evidence.
        """
        ...


def smoother(kind: Smoothing, time_constant_s: float) -> Smoother:
    """A new one, for one video."""
    if kind == "flow":
        return FlowSmoother(time_constant_s)
    return ExponentialSmoother(time_constant_s if kind == "exponential" else 0.0)


class ExponentialSmoother:
    """Each pixel by itself: for a camera that stands still.

    Args:
        time_constant_s: after which a change has come through by 63 %; 0 mixes nothing.
    """

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._known: Evidence | None = None
        self._fed_s: float | None = None

    def feed(self, rgb: Frame, evidence: Frame | None, seconds: float, *, cut: bool) -> Evidence:
        if cut:
            self._known = None
        if evidence is None:
            return np.zeros(rgb.shape[:2], np.float32) if self._known is None else self._known
        if self._known is None or self._fed_s is None:
            self._known = evidence.astype(np.float32)
        else:
            share = _share(seconds - self._fed_s, self._time_constant_s)
            cv2.accumulateWeighted(evidence, self._known, share)
        self._fed_s = seconds
        return self._known


class FlowSmoother:
    """What is known moves along with the ground, also through frames that the network is not shown.

    Where the ground was not seen before (at the border, behind what moved) the frame alone counts.

    Args:
        time_constant_s: as of `ExponentialSmoother`.
    """

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._flow = _dis(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._grey: Frame | None = None
        self._known: Evidence | None = None
        self._fed_s = 0.0

    def feed(self, rgb: Frame, evidence: Frame | None, seconds: float, *, cut: bool) -> Evidence:
        grey, before = _grey(rgb, _FLOW_PX), self._grey
        self._grey = grey
        if cut or before is None or self._known is None:
            self._known = None if evidence is None else evidence.astype(np.float32)
            self._fed_s = seconds
            return np.zeros(rgb.shape[:2], np.float32) if self._known is None else self._known
        # From each pixel of this frame to where it was in the one before.
        flow = self._flow.calc(grey, before, None)
        carried = _carried(self._known, _enlarged(flow, rgb.shape[:2]))
        if evidence is not None:
            share = _share(seconds - self._fed_s, self._time_constant_s)
            cv2.accumulateWeighted(evidence, carried, share)
            new = _enlarged_mask(_unknown(grey, before, flow), rgb.shape[:2])
            cv2.copyTo(evidence.astype(np.float32), new, carried)
            self._fed_s = seconds
        self._known = carried
        return carried


class CutFinder:
    """Finds where a video goes over to another scene.

    A frame belongs to the scene of the one before where that one, carried along by optical flow,
    correlates with it: however the camera moves and the light changes, but for jumps.
    """

    def __init__(self) -> None:
        self._flow = _dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._grey: Frame | None = None

    def is_cut(self, rgb: Frame) -> bool:
        """Whether a frame shows another scene than the last one that was asked for."""
        grey, before = _grey(rgb, _GLANCE_PX), self._grey
        self._grey = grey
        if before is None:
            return False
        return _alikeness(grey, before, self._flow) < _ALIKE


def _alikeness(grey: Frame, before: Frame, flow: Any) -> float:
    """Correlation of a frame with the one before, carried along: -1 to 1."""
    if max(float(grey.std()), float(before.std())) < _FLAT:
        # Nothing to be seen in both, as black frames are.
        return 1.0
    carried = _carried(before, flow.calc(grey, before, None)).astype(np.float32)
    a, b = grey - grey.mean(dtype=np.float64), carried - carried.mean(dtype=np.float64)
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-6))


def _share(passed_s: float, time_constant_s: float) -> float:
    """What a new frame counts."""
    return 1.0 if time_constant_s <= 0 else 1 - exp(-max(passed_s, 0.0) / time_constant_s)


def _dis(preset: int) -> Any:
    return cv2.DISOpticalFlow.create(preset)


def _grey(rgb: Frame, longest_px: int) -> Frame:
    """(y, x) no longer than that, and no shorter than optical flow needs."""
    height, width = rgb.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = max(round(width * scale), _LEAST_PX), max(round(height * scale), _LEAST_PX)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _enlarged(flow: NDArray[np.float32], shape_yx: tuple[int, ...]) -> NDArray[np.float32]:
    """Flow in the pixels of a larger frame."""
    height, width = shape_yx
    small_y, small_x = flow.shape[:2]
    if (small_y, small_x) == (height, width):
        return flow
    in_larger = flow * np.array([width / small_x, height / small_y], dtype=np.float32)
    large = cv2.resize(in_larger, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, dtype=np.float32)


def _enlarged_mask(mask: NDArray[np.bool_], shape_yx: tuple[int, ...]) -> Frame:
    size = shape_yx[1], shape_yx[0]
    large = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(large, dtype=np.uint8)


def _places(flow: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel was: x and y."""
    height, width = flow.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    return np.add(flow[..., 0], x), np.add(flow[..., 1], y)


def _carried(values: NDArray[Any], flow: NDArray[np.float32]) -> NDArray[Any]:
    """Values of the frame before, where they are in this one."""
    x, y = _places(flow)
    # What is carried through many frames is blurred at each: by this least.
    moved = cv2.remap(values, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=values.dtype)


def _unknown(grey: Frame, before: Frame, flow: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(y, x) whether a pixel shows ground that the frame before does not."""
    x, y = _places(flow)
    height, width = grey.shape
    outside = (x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)
    change = cv2.blur(cv2.absdiff(grey, _carried(before, flow)), (5, 5))
    return np.asarray(outside | (change > _UNLIKE))
