"""In which form a client wants its answer."""

from __future__ import annotations

from rooftrace.rest.answers import Format
from rooftrace.rest.problems import ProblemError

__all__ = ["negotiated"]

_ACCEPTED: dict[str, Format] = {
    "application/geo+json": "geojson",
    "application/json": "geojson",
    "image/png": "png",
    "application/zip": "zip",
}


def negotiated(accept: list[str]) -> Format:
    """The form that a client likes best (RFC 9110, 12.5.1); of equals the first of ours.

    Raises:
        ProblemError: it likes none.
    """
    ranges = [_range(part) for part in ",".join(accept).split(",") if part.strip()]
    if not ranges:
        return "geojson"
    liked = {kind: _quality(kind, ranges) for kind in _ACCEPTED}
    best = max(liked, key=lambda kind: liked[kind])
    if liked[best] <= 0:
        raise ProblemError(
            "not-acceptable",
            f"The header Accept asks for {', '.join(accept)[:100]!r}; there are "
            "application/geo+json, image/png and application/zip.",
            remedy="Ask for one of them, or say format=geojson, png or zip.",
        )
    return _ACCEPTED[best]


def _range(text: str) -> tuple[str, float]:
    """Of a media range: itself, and how much it is liked."""
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return kind, float(value)
            except ValueError:
                return kind, 0.0
    return kind, 1.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """What the most exact range that matches says."""
    for pattern in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        for given, quality in ranges:
            if given == pattern:
                return quality
    return 0.0
