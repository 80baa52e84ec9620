"""Planted differences between two sets are found, and the remedies are valid configuration."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace

from rooftrace.audit.facts import Finding, SceneFacts
from rooftrace.audit.report import compare_sets, shift_findings
from rooftrace.audit.scale import ScaleEstimate, ScaleShift
from rooftrace.samples.augment import AugmentConfig

SAME = ScaleShift((ScaleEstimate("georeference", 1.0, 1.0, 1.0, True, "0.3 m."),))


def estimate(method: str, factor: float, low: float, high: float, sure: bool = True) -> ScaleShift:
    return ScaleShift((ScaleEstimate(method, factor, low, high, sure, "Seen."),))  # type: ignore[arg-type]


def facts(count: int = 40, seed: int = 0, **changes: object) -> list[SceneFacts]:
    made = [
        SceneFacts(
            id=f"{seed}-{i:02}",
            image=f"{i}.png",
            shape_yx=(512, 512),
            bands=3,
            dtype="uint8",
            valid_share=1.0,
        )
        for i in range(count)
    ]
    return [replace(one, **changes) for one in made]  # type: ignore[arg-type]


def found(
    a: Sequence[SceneFacts], b: Sequence[SceneFacts], scale: ScaleShift = SAME
) -> dict[str, Finding]:
    return {finding.key: finding for finding in shift_findings(compare_sets(a, b, scale))}


def _toml(remedy: str) -> AugmentConfig:
    """Return the [augment] lines of a remedy as a configuration."""
    text = remedy.partition("[augment] ")[2]
    lines = re.findall(r"\w+ = (?:\[[^\]]*\]|[\d.]+\d)", text)
    values = tomllib.loads("\n".join(line for line in lines if not line.startswith("crop_px")))
    assert values
    return AugmentConfig.model_validate(values)


def test_draws_of_one_distribution_give_no_finding() -> None:
    assert found(facts(seed=1), facts(seed=2)) == {}


def test_other_bands_and_unmarked_nodata_are_found() -> None:
    black = facts(seed=2, bands=4, flat_share=0.3, flat_colour=(0.0, 0.0, 0.0))
    results = found(facts(seed=1), black)
    assert results["shift.bands"].severity == "error"
    assert results["shift.nodata"].remedy.endswith("--against-set nodata=[0,0,0].")


def test_the_scale_has_an_interval() -> None:
    finding = found(facts(), facts(), estimate("images", 2.1, 1.8, 2.5))["shift.scale"]
    assert finding.title == "The other images are 2.1 times coarser (1.8 to 2.5) than these"
    limits = _toml(finding.remedy).scale_range
    assert limits is not None
    assert limits[0] <= 1.8 < 2.5 <= limits[1]
    assert "crop_px = 160" in finding.remedy


def test_with_metres_the_coarser_scale_is_recommended() -> None:
    scale = replace(estimate("georeference", 2.0, 2.0, 2.0), gsd_a_m=0.3, gsd_b_m=0.6)
    finding = found(facts(), facts(), scale)["shift.scale"]
    assert "gsd_m = 0.6;" in finding.remedy
    assert _toml(finding.remedy).gsd_range_m == (0.48, 0.75)
    assert "--gsd" not in finding.remedy


def test_metres_that_the_images_contradict_are_a_finding() -> None:
    (images,) = estimate("images", 2.0, 1.7, 2.4).estimates
    scale = ScaleShift((*SAME.estimates, images))
    assert list(found(facts(seed=1), facts(seed=2), scale)) == ["shift.scale.contradiction"]
