"""Kinds of building, each drawn by chance from its own range of sizes, shapes and materials."""

from __future__ import annotations

from rooftrace.testing._canvas import Rng
from rooftrace.testing._roofs import Building, Roof, Wing
from rooftrace.testing._town import Palette

__all__ = ["apartment", "cottage", "hall", "hut", "shack", "terrace"]

Point = tuple[float, float]


def _tone(rng: Rng, dirt: float) -> tuple[float, float]:
    return float(rng.random()), float(rng.uniform(0, dirt))


def _pick(rng: Rng, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def cottage(
    rng: Rng, palette: Palette, xy: Point, angle: float, wide: float, deep: float
) -> Building:
    """A detached house: a main wing, often with one or two more (L, T, U)."""
    material = _pick(rng, palette.houses)
    flat = material in ("concrete", "white", "bitumen")
    roof: Roof = "flat" if flat else "hip" if rng.random() < 0.5 else "gable_u"
    pitch = 0.0 if flat else round(float(rng.uniform(0.3, 0.55)), 3)
    a, b = wide / 2, deep / 2
    wings = [Wing(-a, -b, a, b, roof, pitch)]
    cross: Roof = "gable_v" if roof == "gable_u" else roof
    roll = rng.random()
    arm, out = min(wide * rng.uniform(0.34, 0.46), deep), deep * rng.uniform(0.3, 0.5)
    way = 1 if rng.random() < 0.5 else -1
    if roll < 0.35:
        left = -a if way > 0 else a - arm
        wings = [Wing(-a, -b, a, b - out, roof, pitch), Wing(left, -b, left + arm, b, cross, pitch)]
    elif roll < 0.5:
        middle = rng.uniform(-a * 0.3, a * 0.3)
        wings = [
            Wing(-a, -b, a, b - out, roof, pitch),
            Wing(middle - arm / 2, -b + (deep - out) / 2, middle + arm / 2, b, cross, pitch),
        ]
    elif roll < 0.58 and wide > 12:
        arm = wide * 0.3
        wings = [
            Wing(-a, -b, a, b - out, roof, pitch),
            Wing(-a, -b, -a + arm, b, cross, pitch),
            Wing(a - arm, -b, a, b, cross, pitch),
        ]
    tags = frozenset({"parapet", "roof tank", "solar"}) if flat else frozenset({"chimney", "solar"})
    eave = float(rng.choice([2.8, 3.0, 5.6]))
    return Building(xy, angle, tuple(wings), material, eave, tone=_tone(rng, 0.6), tags=tags)


def shack(
    rng: Rng, palette: Palette, xy: Point, angle: float, wide: float, deep: float
) -> Building:
    """A small house of an unplanned settlement, mostly under sheet metal."""
    material = _pick(rng, palette.shacks)
    a, b = wide / 2, deep / 2
    roof: Roof = "gable_u" if rng.random() < 0.55 else "shed"
    pitch = round(float(rng.uniform(0.12, 0.3)), 3)
    tags: frozenset[str] = frozenset()
    if material in ("concrete", "white"):
        roof, pitch, tags = "flat", 0.0, frozenset({"parapet", "roof tank"})
    wings = [Wing(-a, -b, a, b, roof, pitch)]
    if wide > 7 and rng.random() < 0.3:
        side = rng.uniform(2, 3.2)
        wings.append(Wing(-a, b - 0.5, -a + wide * rng.uniform(0.4, 0.7), b + side, roof, pitch))
    eave = float(rng.uniform(2.2, 3.2))
    return Building(xy, angle, tuple(wings), material, eave, tone=_tone(rng, 1.0), tags=tags)


def hut(rng: Rng, xy: Point) -> Building:
    """A round hut under thatch."""
    r = float(rng.uniform(2.2, 3.6))
    cone = Wing(-r, -r, r, r, "cone", 0.6)
    return Building(xy, 0.0, (cone,), "thatch", 2.0, tone=_tone(rng, 0.7))


def terrace(
    rng: Rng, palette: Palette, xy: Point, angle: float, count: int, unit: float, deep: float
) -> list[Building]:
    """A row of `count` houses that share their side walls exactly."""
    material = _pick(rng, palette.houses)
    flat = material in ("concrete", "white", "bitumen")
    pitch = 0.0 if flat else round(float(rng.uniform(0.4, 0.6)), 3)
    tone, eave = rng.random(), float(rng.uniform(4.8, 5.8))
    row = []
    for i in range(count):
        u0, u1 = (i - count / 2) * unit, (i + 1 - count / 2) * unit
        own = float((tone + rng.normal(0, 0.12)) % 1.0)
        wing = Wing(u0, -deep / 2, u1, deep / 2, "flat" if flat else "gable_u", pitch)
        tags = frozenset({"parapet"}) if flat else frozenset({"chimney", "solar"})
        dirt = float(rng.uniform(0, 0.6))
        row.append(Building(xy, angle, (wing,), material, eave, tone=(own, dirt), tags=tags))
    return row


def hall(rng: Rng, xy: Point, angle: float, wide: float, deep: float) -> Building:
    """A factory or a warehouse."""
    material = _pick(rng, ("metal", "metal", "white", "blue metal", "concrete", "bitumen", "rusty"))
    a, b = wide / 2, deep / 2
    flat = material in ("white", "concrete", "bitumen")
    roof: Roof = "flat" if flat else "gable_u"
    pitch = 0.0 if flat else round(float(rng.uniform(0.08, 0.16)), 3)
    wings = [Wing(-a, -b, a, b, roof, pitch)]
    if not flat and deep > 32 and rng.random() < 0.6:
        # Two naves side by side, a valley between them.
        wings = [Wing(-a, -b, a, 0, roof, pitch), Wing(-a, 0, a, b, roof, pitch)]
    elif rng.random() < 0.4:
        wings = [Wing(-a, -b, a, b * 0.5, roof, pitch), Wing(-a, -b, a * 0.1, b, roof, pitch)]
    tags = frozenset({"parapet", "plant"}) if flat else frozenset({"skylights"})
    eave = float(rng.uniform(6, 9.5))
    return Building(xy, angle, tuple(wings), material, eave, tone=_tone(rng, 0.45), tags=tags)


def apartment(rng: Rng, xy: Point, angle: float, wide: float, deep: float) -> Building:
    """A block of flats: a slab, an L, a U, or closed around a courtyard."""
    material = _pick(rng, ("concrete", "bitumen", "white", "terracotta", "grey", "concrete"))
    flat = material in ("white", "concrete", "bitumen")
    roof: Roof = "flat" if flat else "hip"
    pitch = 0.0 if flat else 0.35
    arm = float(rng.uniform(9.5, 12.5))
    a, b = wide / 2, max(deep, arm) / 2
    roll = rng.random()
    bar = Wing(-a, -b, a, -b + arm, roof, pitch)
    left, right = Wing(-a, -b, -a + arm, b, roof, pitch), Wing(a - arm, -b, a, b, roof, pitch)
    wings: tuple[Wing, ...] = (bar,)
    if roll < 0.25 and wide > 3 * arm and deep > 2.5 * arm:
        wings = (bar, left, right, Wing(-a, b - arm, a, b, roof, pitch))
    elif roll < 0.5 and wide > 2.5 * arm:
        wings = (bar, left, right)
    elif roll < 0.75:
        wings = (bar, left)
    tags = frozenset({"parapet", "plant"}) if flat else frozenset({"chimney"})
    eave = float(rng.uniform(9, 17))
    tone = _tone(rng, 0.5)
    return Building(xy, angle, wings, material, eave, tone, tags)
