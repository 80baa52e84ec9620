"""How a prediction shows itself in a notebook: a picture with a table, and an interactive map."""

from __future__ import annotations

from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plain_number
from rooftrace.io.legend import CONFIDENCE, LOW_SCORE
from rooftrace.io.picture import data_url, encoded

if TYPE_CHECKING:
    from rooftrace.predict.outputs import Prediction

_SIDE_PX = 900
"""Maximum side of the picture in pixels; notebooks keep it inside their file."""


def picture_of(prediction: Prediction, kind: Literal["JPEG", "PNG"]) -> bytes | None:
    """Return the preview as a file; None if it was not asked for."""
    if prediction.result.preview is None:
        return None
    picture = prediction.result.preview.convert("RGB")
    picture.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    return encoded(picture, kind, quality=85, optimize=True)


def html_of(prediction: Prediction) -> str:
    """Return the picture beside a table of the figures, in the colours of the notebook."""
    summary, (height, width) = prediction.summary, prediction.mask.shape
    scale = summary.gsd_m
    rows = {
        "Buildings": f"{summary.buildings:,}",
        "Built up": f"{summary.built_up_share:.1%}",
        "Image": f"{width:,} × {height:,} px",
        "Scale": "unknown" if scale is None else f"{plain_number(scale)} m per pixel",
        "Threshold": "–" if summary.threshold is None else f"{summary.threshold:g}",
        "Time": f"{summary.seconds:.1f} s",
    }
    rows |= {
        f"Class {one.name}": f"{one.share:.1%}" for one in summary.classes[1:] if len(rows) < 12
    } if len(summary.classes) > 2 else {}  # fmt: skip
    cells = "".join(
        f'<tr><th style="text-align:left;font-weight:normal;opacity:.7">{escape(name)}</th>'
        f'<td style="text-align:right">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    jpeg = picture_of(prediction, "JPEG")
    picture = "" if jpeg is None else (
        f'<img alt="Preview of {escape(prediction.name)}" style="max-width:min(100%,560px);'
        f'height:auto" src="{data_url(jpeg)}">'
    )  # fmt: skip
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary.notes)
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start">'
        f"{picture}<div><strong>{escape(prediction.name)}</strong>"
        f"<table>{cells}</table><ul>{notes}</ul></div></div>"
    )


def map_of(prediction: Prediction) -> Any:
    """Return a map of the footprints, by lonboard or folium."""
    if prediction.mask.grid.crs is None:
        raise ConfigError(
            f"{prediction.name} has no CRS, so that its buildings have no place on a map.",
            remedy="Show the prediction itself, or predict a georeferenced image.",
        )
    if find_spec("lonboard") is not None:
        import lonboard

        return lonboard.viz(prediction.footprints.to_crs(4326))
    if all(map(find_spec, ("folium", "mapclassify", "matplotlib"))):
        from branca.colormap import LinearColormap

        ramp = LinearColormap(CONFIDENCE, vmin=LOW_SCORE, vmax=1)
        return prediction.footprints.explore(column="score", cmap=ramp)
    raise ConfigError(
        "A map needs lonboard, or folium with mapclassify and matplotlib; they are not installed.",
        remedy="Install them: pip install folium mapclassify matplotlib",
    )
