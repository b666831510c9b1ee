"""Quality in reports: what was found, what it means, and why there is none."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from harness.analysis.summary import COLUMNS
from harness.run.scoring import cannot_score
from harness.store.manifest import CellEntry, GreedyEntry, Manifest, ReferenceEntry
from reports import answer
from reports.data import ReportData
from reports.tables import quality as quality_table
from reports.writers import html, markdown
from tests.fabricated import again, cell_entry

FLOOR = {"kl_mean": 0.0002, "top1_agreement": 1.0, "positions": 64, "differs": "the engine was started again"}
GREEDY = {"prompts": 8, "tokens": 32, "same_share": 0.25, "median_at": 13, "median_gap": 0.021}
REFERENCE = {
    "name": {"model": "tiny", "engine": "e", "level": "f16", "variant": None},
    "positions": 16384,
    "chunks": 64,
    "text": "the shipped text",
    "tokens": "bytes",
    "noise_floor": FLOOR,
    "bound": "64 of 80 chunks: there is no more room",
}


def cell(level: str, **quality: Any) -> CellEntry:
    """A cell that was scored, or not."""
    names = {"model": "tiny", "engine": "e", "level": level, "variant": None, "repetition": 1}
    told = {"status": "complete", "reason": None, "positions": 16384, "chunks": 64, "greedy": GREEDY, **quality}
    return cell_entry(id=f"0-{level}", **names, trials=[], quality=told)


def figure(level: str, metric: str, value: float, low: float, high: float) -> dict[str, Any]:
    """A pooled row of the summary."""
    keys = {"model": "tiny", "engine": "e", "level": level, "variant": "", "load": "quality", "class": "all"}
    numbers = {"value": value, "low": low, "high": high, "bound": "point", "n": 16384, "n_eff": 64}
    rest = {"unit": "nats", "source": "full vocabulary", "window": ""}
    return keys | {"repetition": "pooled", "metric": metric, "statistic": "value"} | numbers | rest


def report(cells: list[CellEntry], *rows: dict[str, Any]) -> ReportData:
    """A run of scores."""
    scored = {"tiny-e-f16": ReferenceEntry.model_validate(REFERENCE)}
    manifest = Manifest(name="t", status="complete", cells=cells, quality=scored)
    return ReportData("t", manifest, pd.DataFrame(rows, columns=list(COLUMNS)))


@pytest.fixture
def scored() -> ReportData:
    """One level that is good, one that cannot be told from the reference, one that could not be scored."""
    responses = {"replies": 4, "words": 28.5, "distinct_1": 0.61, "distinct_2": 0.75, "flesch": None, "overlap": 0.1}
    cells = [
        cell("q4_0", responses=responses),
        cell("q8_0", indistinguishable=True),
        cell("x", status="skipped", reason=cannot_score("e"), positions=0, greedy=None),
    ]
    rows = [figure("q4_0", "kl_mean", 0.00219, 0.00209, 0.00231), figure("q8_0", "kl_mean", 0.0003, 0.00028, 0.00032)]
    return report(cells, *rows, figure("q4_0", "top1_agreement", 0.9732, 0.9708, 0.9756))


def test_figures_with_their_intervals(scored: ReportData) -> None:
    """As many digits as the interval allows; a share in per cent."""
    first = quality_table.detail(scored).rows[0]
    assert [cell.text for cell in first[:2]] == ["tiny · e · q4_0", "0.00219"]
    assert first[1].detail == "0.00209 to 0.00231"
    assert "97.3" in first[5].text
    assert first[-1].text == "first differ at token 13 by a gap of 0.021 nats (medians); 2 of 8 do not differ"


def test_what_is_within_the_noise_and_what_could_not_be_scored(scored: ReportData) -> None:
    """Both as footnotes; the reference with its noise and the room it had stands below."""
    table = quality_table.detail(scored)
    assert "indistinguishable" in table.notes[table.rows[1][1].note - 1]  # type: ignore[operator]
    assert "not scored: e does not return the log-probabilities" in table.notes[table.rows[2][0].note - 1]  # type: ignore[operator]
    assert "16384 positions in 64 chunks" in table.notes[-1]
    assert table.notes[-1].endswith("64 of 80 chunks: there is no more room")


def test_a_divergence_from_rounding_alone_is_not_shown_as_none() -> None:
    """Below 0.00001 with an exponent."""
    table = quality_table.detail(report([cell("f32")], figure("f32", "kl_mean", 5.87e-8, 5.51e-8, 6.33e-8)))
    assert (table.rows[0][1].text, table.rows[0][1].detail) == ("5.9e-08", "5.5e-08 to 6.3e-08")


def test_bounds_have_a_column_of_their_own() -> None:
    """Where nothing more is known there is no column for the divergence itself."""
    table = quality_table.detail(report([cell("q4_0", k=20)], figure("q4_0", "kl_bound", 0.002, 0.001, 0.003)))
    assert "KL at least" in table.head
    assert "KL, nats" not in table.head


def test_what_sets_scores_apart_is_told() -> None:
    """True tokens that are unknown, an engine that would begin otherwise, a reference that is itself quantized."""
    name = {"model": "tiny", "engine": "e", "level": "q8_0", "variant": None}
    told = {"beginning": [1], "level": "q8_0", "quantized": True, "name": name}
    cells = [
        cell("q4_0", k=512, true_unknown=7, reference=name, beginning=[1]),
        cell("q2_k", reference=name, beginning=[]),
        cell("q8_0", reference=name, beginning=[1]),
    ]
    data = report(cells)
    data.manifest.quality["tiny-e-f16"] = ReferenceEntry.model_validate(REFERENCE | told)
    table = quality_table.detail(data)
    lost, other, same = (row[0].note for row in table.rows)
    assert table.notes[lost - 1] == "the probability of the true token is unknown at 7 of 16384 positions"  # type: ignore[operator]
    assert "after token 1, as the reference is served; this engine puts nothing" in table.notes[other - 1]  # type: ignore[operator]
    assert same is None
    assert "each after token 1; from itself" in table.notes[-1]
    assert "it is itself quantized (q8_0), so these are distances from it, not quality" in table.notes[-1]


def test_a_small_bound_is_not_called_indistinguishable() -> None:
    """As runs did that were stored before."""
    data = report([cell("q4_0", k=20, indistinguishable=True)], figure("q4_0", "kl_bound", 1e-6, 1e-7, 1e-5))
    assert quality_table.detail(data).rows[0][1].note is None


def test_replies_are_called_descriptive(scored: ReportData) -> None:
    """The title and a footnote say so; what is unknown is a dash."""
    table = quality_table.responses(scored)
    assert table.title == "Replies (descriptive)"
    assert "descriptive only" in table.notes[0]
    assert [cell.text for cell in table.rows[0]][1:3] == ["4", "28.5"]
    assert table.rows[0][5].text == "—"


def test_every_page_shows_it(scored: ReportData) -> None:
    """Without any trial the headline says that there are figures of quality only."""
    for page in (markdown.render(scored), html.render(scored)):
        assert "Quality vs. reference" in page
        assert "quality only" in page
    told = GreedyEntry.model_validate(GREEDY | {"median_at": None})
    assert quality_table.greedy_text(told) == "all 8 the same for 32 tokens"


def test_nothing_is_said_where_nothing_was_asked() -> None:
    """A run without `quality` has neither table."""
    plain = report([again(cell("q4_0"), quality=None)])
    tables = (quality_table.detail(plain), quality_table.responses(plain))
    assert not any(table.rows or table.notes for table in tables)
    assert not quality_table.scored(plain)


def test_a_run_without_loads_tells_its_figures_below_the_verdict(scored: ReportData) -> None:
    """Each configuration has a line; unknown figures are left out."""
    told = [line.parts for line in answer.lines(scored) if line.label == "QUALITY"]
    assert told[0][0] == "tiny · e · q4_0"
    assert told[0][1].startswith("KL 0.00219 · same top token 97.3")
    assert told[1] == ("tiny · e · q8_0", "KL 0.000300")
