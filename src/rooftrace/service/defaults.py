"""Input options of a server, for requests that do not have their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rooftrace.io.nodata import NodataRule
from rooftrace.predict.plan import AS_FOUND, SceneOptions

__all__ = ["RequestDefaults"]


@dataclass(frozen=True)
class RequestDefaults:
    """Input options that apply to a request unless it gives its own.

    Args:
        images: Bands, stretch, metres per pixel and scale.
        nodata: Pixel values that mean nodata, in addition to those that the file declares.
    """

    images: SceneOptions = AS_FOUND
    nodata: NodataRule | None = None

    def filled(self, options: SceneOptions | None) -> SceneOptions:
        """Return the options of a request, completed by those of the server.

        Metres per pixel and scale belong together: a request that gives one of them uses neither
        of the server's.
        """
        given, own = options or AS_FOUND, self.images
        if given.gsd_m is None and given.scale is None:
            given = replace(given, gsd_m=own.gsd_m, scale=own.scale)
        return replace(
            given,
            bands=own.bands if given.bands is None else given.bands,
            stretch=own.stretch if given.stretch == AS_FOUND.stretch else given.stretch,
        )
