"""Statuses of two layers of buildings, by hand and against a reference that tries all pairs."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity, box

from rooftrace.core.errors import DataError
from rooftrace.vector import match
from rooftrace.vector.compare import (
    STATUSES,
    CompareRules,
    LayerComparison,
    SideStatus,
    compare_layers,
)
from rooftrace.vector.match import PackedPolygons, PolygonOverlaps, find_overlaps, first_of_equal

RULES = CompareRules()


def array(*polygons: shapely.Geometry) -> np.ndarray:
    made = np.empty(len(polygons), np.object_)
    made[:] = polygons
    return made


def compared(new: list[shapely.Geometry], old: list[shapely.Geometry]) -> LayerComparison:
    return compare_layers(PackedPolygons.of(array(*new)), PackedPolygons.of(array(*old)))


def names(side: SideStatus) -> list[str]:
    return [STATUSES[code] for code in side.status.tolist()]


def statuses(
    new: list[shapely.Geometry], old: list[shapely.Geometry]
) -> tuple[list[str], list[str]]:
    found = compared(new, old)
    return names(found.new), names(found.old)


HOUSE = box(0, 0, 10, 10)
SMALL = box(0, 0, 6, 7)
HALL = box(0, 0, 40, 40)
SLIVER = box(9.5, 0, 10, 10)
HOUSES = [box(x, x, x + 13, x + 13) for x in (4, 12, 23)]


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ([], [], ([], [])),
        ([HOUSE], [HOUSE], (["same"], ["same"])),
        ([HOUSE], [], (["new"], [])),
        ([], [HOUSE], ([], ["gone"])),
        # A house of 6 m, moved with and without an overlap, and farther than the limit.
        ([box(3, 0, 9, 7)], [SMALL], (["moved"], ["moved"])),
        ([box(8, 0, 14, 7)], [SMALL], (["moved"], ["moved"])),
        ([box(10.5, 0, 16.5, 7)], [SMALL], (["new"], ["gone"])),
        # A sliver does not divide a house; small pieces belong to one that large ones divide.
        ([box(0, 0, 9.5, 10), SLIVER], [HOUSE], (["same", "changed"], ["same"])),
        ([box(0, 0, 5, 10), box(5, 0, 9.5, 10), SLIVER], [HOUSE], (["split"] * 3, ["split"])),
        # A house over three others, of which none holds more than half of it, is not new.
        (
            [HOUSE],
            [box(-9, 0, 4, 40), box(4, 0, 7, 40), box(7, 0, 20, 40)],
            (["changed"], ["gone"] * 3),
        ),
        # Corners that are left of a hall are no pieces of it, and it is gone; a third of it is not.
        ([HOUSE, box(30, 30, 40, 40)], [HALL], (["changed"] * 2, ["gone"])),
        ([HALL], [HOUSE], (["new"], ["changed"])),
        ([box(0, 0, 14, 40)], [HALL], (["changed"], ["changed"])),
        # An extension with an IoU below one half.
        ([box(0, 0, 30, 10)], [HOUSE], (["changed"], ["changed"])),
        # Where one wall of a hall moved, a shift does not explain the difference.
        ([box(0, 0, 108, 50)], [box(0, 0, 100, 50)], (["same"], ["same"])),
        # One that is there twice is not split.
        ([HOUSE, affinity.translate(HOUSE, 0.1)], [HOUSE], (["same", "changed"], ["same"])),
        # A house of its own walls in the place of a hall is new, also with one wall in the street.
        ([box(10, 0, 20, 10), box(24, 24, 34, 34)], [HALL], (["new"] * 2, ["gone"])),
        ([HALL], [box(10, 0, 20, 10), box(24, 24, 34, 34)], (["new"], ["gone"] * 2)),
        # Also where they cover a third of it; one alone, or a wing with one wall, has changed.
        (HOUSES, [HALL], (["new"] * 3, ["gone"])),
        ([HALL], HOUSES, (["new"], ["gone"] * 3)),
        ([box(10, 10, 30, 30)], [HALL], (["changed"], ["changed"])),
        ([box(0, 0, 10, 40), *HOUSES[1:]], [HALL], (["changed"] * 3, ["changed"])),
        # A large hall that moved has moved although its IoU is high.
        ([box(5, 0, 105, 50)], [box(0, 0, 100, 50)], (["moved"], ["moved"])),
    ],
)
def test_statuses_by_hand(
    new: list[shapely.Geometry], old: list[shapely.Geometry], expected: object
) -> None:
    assert statuses(new, old) == expected


def test_a_house_divided_in_two_is_split_and_two_in_one_merged() -> None:
    halves = [box(0, 0, 6, 10), box(6, 0, 10, 10)]
    found = compared(halves, [HOUSE])
    assert (names(found.new), names(found.old)) == (["split", "split"], ["split"])
    assert found.old.iou[0] == found.old.overlap[0] == 1
    assert found.old.partner[0] == 0
    assert found.new.partner.tolist() == [0, 0]
    np.testing.assert_allclose(found.new.iou, [0.6, 0.4])
    assert statuses([HOUSE], halves) == (["merged"], ["merged", "merged"])
    extended = compared([box(0, 0, 20, 10)], [HOUSE])
    assert [(s.iou[0], s.overlap[0], s.overlap_other[0]) for s in (extended.new, extended.old)] == [
        (0.5, 0.5, 1), (0.5, 1, 0.5),
    ]  # fmt: skip


def test_polygons_on_top_of_each_other_are_refused() -> None:
    turned = [affinity.rotate(HOUSE, angle) for angle in range(90)]
    layer = PackedPolygons.of(array(*turned))
    assert len(find_overlaps(layer, PackedPolygons.of(array(HOUSE))).one) == 90
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "_CANDIDATES_AT_ONCE", 100)
        patch.setattr(match, "_MOST_PER_POLYGON", 10)
        with pytest.raises(DataError, match="on top of each other"):
            compare_layers(layer, layer)


def random_layers(seed: int, count: int, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two layers of houses: some are moved, resized, divided or removed in one of them."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, extent, (count, 2))
    size = rng.uniform(3, 15, (count, 2))
    old = [
        affinity.rotate(box(*c, *(c + s)), a)
        for c, s, a in zip(corner, size, rng.uniform(0, 90, count))
    ]
    new: list[shapely.Geometry] = []
    for house, kind, shift in zip(old, rng.integers(0, 6, count), rng.normal(0, 3, (count, 2))):
        if kind == 0:
            new.append(affinity.translate(house, *shift))
        elif kind == 1:
            new.append(affinity.scale(house, *rng.uniform(0.6, 1.5, 2)))
        elif kind == 2:
            left, bottom, right, top = house.bounds
            at = rng.uniform(left, right)
            new += [house & box(left, bottom, at, top), house & box(at, bottom, right, top)]
        elif kind == 3:
            new.append(affinity.translate(house, *shift / 30))
        elif kind == 4 and len(new):
            new[-1] = shapely.convex_hull(new[-1] | house)
    added = rng.uniform(0, extent, (count // 5, 2))
    new += [box(*place, *(place + 7)) for place in added]
    layers = array(*[one for one in new if one.area > 0]), array(*old)
    return layers if seed % 2 else layers[::-1]


def reference(new: np.ndarray, old: np.ndarray) -> tuple[list[str], list[str]]:
    """Return the statuses by the conditions in the documentation, trying all pairs."""
    common = {
        (i, j): area
        for i, a in enumerate(new)
        for j, b in enumerate(old)
        if (area := a.intersection(b).area) > 0
    }
    iou = {(i, j): c / (new[i].area + old[j].area - c) for (i, j), c in common.items()}
    status: dict[tuple[str, int], str] = {}

    groups = []
    for side, wholes, pieces in (("old", old, new), ("new", new, old)):
        holder: dict[int, int] = {}
        for p in range(len(pieces)):
            held = []
            for w in range(len(wholes)):
                c = common.get((p, w) if side == "old" else (w, p), 0.0)
                if c > pieces[p].area / 2:
                    held.append((-round(c / pieces[p].area, 9), w))
            if held:
                holder[p] = min(held)[1]
        for w, whole in enumerate(wholes):
            mine = [p for p, held_by in holder.items() if held_by == w]
            total = sum(common[(p, w) if side == "old" else (w, p)] for p in mine)
            area = sum(pieces[p].area for p in mine)
            large = [
                p
                for p in mine
                if common[(p, w) if side == "old" else (w, p)] >= RULES.piece_share * whole.area
            ]
            together = total / (whole.area + area - total) if mine else 0
            if len(large) > 1 and together >= RULES.match_iou and total <= 1.05 * whole.area:
                order = -round(together, 9), -round(whole.area, 9), side == "new", w
                groups.append((order, side, mine))
    for (*_, whole), side, mine in sorted(groups):
        other = "new" if side == "old" else "old"
        members = [(side, whole), *((other, p) for p in mine)]
        if not any(member in status for member in members):
            for member in members:
                status[member] = "split" if side == "old" else "merged"

    def is_free(i: int, j: int) -> bool:
        return ("new", i) not in status and ("old", j) not in status

    def away(i: int, j: int) -> float:
        return float(new[i].centroid.distance(old[j].centroid))

    def aligned(i: int, j: int) -> float:
        a, b = new[i].centroid, old[j].centroid
        moved = affinity.translate(new[i], b.x - a.x, b.y - a.y)
        both = moved.intersection(old[j]).area
        return float(both / (moved.area + old[j].area - both))

    for i, j in sorted(iou, key=lambda pair: (-iou[pair], pair)):
        if iou[i, j] >= RULES.match_iou and is_free(i, j):
            kind = "same" if iou[i, j] >= RULES.same_iou else "changed"
            if RULES.move_m <= away(i, j) <= RULES.max_move_m:
                explained = 1 - aligned(i, j) <= (1 - iou[i, j]) / 2
                kind = "moved" if aligned(i, j) >= RULES.shape_iou and explained else kind
            status["new", i] = status["old", j] = kind
    near = [
        (round(away(i, j), 9), i, j)
        for i in range(len(new))
        for j in range(len(old))
        if is_free(i, j) and away(i, j) <= RULES.max_move_m and aligned(i, j) >= RULES.shape_iou
    ]
    for _, i, j in sorted(near):
        if is_free(i, j):
            status["new", i] = status["old", j] = "moved"

    def is_apart(side: str, pair: tuple[int, int]) -> bool:
        one, other = (new[pair[0]], old[pair[1]]) if side == "new" else (old[pair[1]], new[pair[0]])
        near = one.boundary.intersection(other.boundary.buffer(RULES.wall_m)).length
        return bool(near < RULES.wall_share * one.boundary.length)

    best: dict[tuple[str, int], tuple[int, int]] = {}
    is_left = {pair: is_free(*pair) for pair in common}
    for side, layer in (("new", new), ("old", old)):
        for n in range(len(layer)):
            mine = [pair for pair in common if pair[side == "old"] == n]
            linked = [p for p in mine if common[p] > min(new[p[0]].area, old[p[1]].area) / 2]
            others, of = (old, "old") if side == "new" else (new, "new")
            inside = [
                pair for pair in mine
                if is_left[pair] and is_apart(of, pair)
                and common[pair] > others[pair[side == "new"]].area / 2
                and common[pair] <= layer[n].area / 2
            ]  # fmt: skip
            part = sum(common[pair] for pair in mine) / layer[n].area
            left_out = sum(common[pair] for pair in inside) if len(inside) > 1 else 0
            covered = part - left_out / layer[n].area
            has_changed = (linked or part > 0.5) and round(covered, 9) >= RULES.left_share
            missing = "new" if side == "new" else "gone"
            if linked and has_changed and (side, n) not in status:
                best[side, n] = max(linked, key=lambda pair: iou[pair])
            status.setdefault((side, n), "changed" if has_changed else missing)
    replaced = {}
    for (side, n), (i, j) in best.items():
        is_alone = status["old", j] == "gone" if side == "new" else status["new", i] == "new"
        if is_alone and is_apart(side, (i, j)):
            replaced[side, n] = "new" if side == "new" else "gone"
    status |= replaced
    return (
        [status["new", i] for i in range(len(new))],
        [status["old", j] for j in range(len(old))],
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 35), st.sampled_from([40.0, 90.0, 300.0]))
def test_statuses_equal_those_of_a_reference_that_tries_all_pairs(
    seed: int, count: int, extent: float
) -> None:
    new, old = random_layers(seed, count, extent)
    found = compare_layers(PackedPolygons.of(new), PackedPolygons.of(old))
    assert (names(found.new), names(found.old)) == reference(new, old)
    assert found.matched == len(PolygonOverlaps.of(old, new).matches(0.5).iou)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 10, 50]))
def test_pairs_do_not_depend_on_blocks_threads_or_far_polygons(seed: int, per_block: int) -> None:
    new, old = random_layers(seed, 40, 200.0)
    # Coordinates at 0 and at the end of the world, and one polygon under everything.
    far = array(box(-4e7, -4e7, -4e7 + 5, -4e7 + 5), box(-10, -10, 210, 210))
    new, old = np.concatenate([new, far]), np.concatenate([old, far])
    truth = PolygonOverlaps.of(new, old)
    truth = truth.where(truth.common > 0)
    order = np.lexsort((truth.other, truth.one))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "_PER_BLOCK", per_block)
        found = find_overlaps(PackedPolygons.of(new), PackedPolygons.of(old), workers=3)
    np.testing.assert_array_equal(found.one, truth.one[order])
    np.testing.assert_array_equal(found.other, truth.other[order])
    np.testing.assert_allclose(found.common, truth.common[order], rtol=1e-9)


def drawn(corner: int, start: int, reverse: bool, parts: int) -> shapely.Geometry:
    ring = [(corner, 0), (corner + 2, 0), (corner + 2, 1), (corner, 1)]
    ring = ring[start:] + ring[:start]
    polygon = shapely.Polygon(ring[::-1] if reverse else ring)
    if not parts:
        return polygon
    beside = [shapely.box(corner, 5, corner + 1, 6)] * (parts - 1)
    return shapely.MultiPolygon([polygon, *beside])


WAYS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.integers(0, 2))


@given(st.lists(WAYS, max_size=12))
def test_the_first_of_each_outline_is_kept(ways: list[tuple[int, int, bool, int]]) -> None:
    polygons = np.array([drawn(*way) for way in ways], np.object_)
    first = first_of_equal(shapely.bounds(polygons).reshape(-1, 4), polygons.__getitem__)
    # Neither the start, nor the direction, nor a single part makes a difference.
    same = [(corner, parts == 2) for corner, _, _, parts in ways]
    assert first.tolist() == [same.index(one) == at for at, one in enumerate(same)]
