"""The texts of the page; no text from outside becomes markup."""

from __future__ import annotations

from page_images import classes_of, kept_of, predictor_of, result_of

from rooftrace.app.page import strings
from rooftrace.app.page.results import Result
from rooftrace.app.page.strings import model_card
from rooftrace.core.errors import BusyError, DataError, TooLargeError
from rooftrace.engines.base import ConstantEngine
from rooftrace.models.bundle import default_bundle
from rooftrace.models.spec import MeasuredMetrics

EVIL = "<script>alert(1)</script>"


def test_an_error_is_a_sentence_with_its_remedy() -> None:
    error = DataError("The image is cut off.", remedy="Send it again.")
    assert strings.sentence(error) == "The image is cut off. Send it again."
    busy = BusyError("All are busy.", remedy="Ask later.", retry_after_s=12.4)
    assert strings.sentence(busy) == "All are busy. Ask later. Come again in about 12 s."


def test_options_of_the_command_line_are_fields() -> None:
    assert "--" not in strings.sentence(DataError("No scale.", remedy="Say it with --gsd."))


def test_a_failed_image_is_not_done() -> None:
    assert strings.images_done(2, 4, 0) == "2 of 4 images are done."
    assert strings.images_done(3, 4, 1) == "3 of 4 images are done; 1 failed, see the table."
    assert strings.images_done(1, 1, 0) == "1 of 1 image is done."


def test_a_status_is_announced_and_escaped() -> None:
    assert 'role="alert"' in strings.status("Broken.", "error")
    assert 'role="status"' in strings.status("Fine.")
    assert EVIL not in strings.status(EVIL)
    assert strings.status("") == ""


def test_figures() -> None:
    text = strings.figures(kept_of().prediction)
    for part in (">2<", "12.5%", "sparse", "0.5 m/px", "100 × 80 px", "threshold of 0.5", "250 m²"):
        assert part in text
    assert "not known" in strings.figures(kept_of("a.png", placed=False).prediction)


def test_a_legend_of_confidence_or_of_classes() -> None:
    assert "confidence" in strings.legend(kept_of().prediction)
    text = strings.legend(classes_of().prediction)
    assert "water 100.0%" in text
    # What is nowhere is left out.
    assert "building" not in text


def test_links_say_the_threshold_that_is_seen() -> None:
    result = result_of()
    result.at(0.75)
    text = strings.downloads("/page", "RUN", 0, [result])
    assert 'href="/page/RUN/0/gpkg?threshold=0.75"' in text
    assert 'href="/page/RUN/table.csv"' in text
    assert strings.downloads("/page", "RUN", 0, [Result("a", error=DataError("No."))]) == ""


def test_what_a_job_can_help_has_a_button() -> None:
    made, large = result_of(EVIL), Result("b.png", error=TooLargeError("It has 9 pixels."))
    text = strings.job_button("/page", "RUN", 0, made)
    assert 'data-job="/page/RUN/0/job"' in text
    assert " data-map>Map and review<" in text
    assert EVIL not in text
    start = strings.job_button("/page", "RUN", 1, large)
    assert 'data-job="/page/RUN/1/job"' in start
    assert "data-map" not in start
    assert strings.job_button("/page", "RUN", 0, Result("a", error=DataError("No."))) == ""
    assert strings.downloads("/page", "RUN", 0, [made], text).count(text) == 1
    table = strings.table([made, large], [text, start])
    assert start in table
    assert text not in table
    assert start in strings.status("It has 9 pixels.", "error", start)


def test_the_card_of_the_default_model() -> None:
    spec = default_bundle().spec
    text = model_card(spec, ConstantEngine())
    for part in ("red, green, blue", "0.382", "background, building", "rotterdam", "0.533",
                 "ODbL", "EfficientNet-Lite2", "constant, fp32", "0.53 on rotterdam"):  # fmt: skip
        assert part in text, part
    # In Vienna and Rotterdam precision is above recall, so nothing is said about the threshold.
    assert "precision is below recall everywhere" not in text


def test_the_card_of_a_bundle_that_says_little() -> None:
    spec = predictor_of().bundle.spec.model_copy(update={"name": EVIL, "licence": EVIL})
    text = model_card(spec, ConstantEngine())
    assert EVIL not in text
    assert "has no figures" in text


def test_the_card_says_what_the_figures_show() -> None:
    measured = [
        MeasuredMetrics(
            data=place, split="val", protocol="p", values={"precision": 0.9, "recall": 0.5}
        )
        for place in ("here", "there")
    ]
    spec = predictor_of().bundle.spec.model_copy(update={"metrics": tuple(measured)})
    text = model_card(spec, ConstantEngine())
    assert "Buildings are missed" in text
    assert "More is taken" not in text
    swapped = [one.model_copy(update={"values": {"precision": 0.5, "recall": 0.9}})
               for one in measured]  # fmt: skip
    text = model_card(spec.model_copy(update={"metrics": tuple(swapped)}), ConstantEngine())
    assert "precision is below recall everywhere" in text
    assert "Buildings are missed" not in text


def test_a_table_of_images_escapes_their_names() -> None:
    failed = Result(EVIL, error=DataError(f"{EVIL} is broken.", remedy="Mend it with --gsd."))
    text = strings.table([result_of(), failed])
    assert EVIL not in text
    assert text.count("data-pick=") == 2
    for part in (
        ">town.tif<",
        "<td>2</td>",
        "<td>12.5%</td>",
        "<td>sparse</td>",
        "Metres per pixel",
    ):
        assert part in text, part
