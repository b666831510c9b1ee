"""The decision table of fabricated runs: what stands in it, which rows are dominated, and what of it cannot be told."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import ExitCode
from harness.store.manifest import CellEntry, EngineEntry, Manifest
from harness.verdict.decision.table import decide
from tests.choices import MIB, Choice, results_of
from tests.fabricated import again

LEVELS = (
    Choice("f16", 1.3, memory=200 * MIB, kl=(0.0, 0.0, 0.0), top1=1.0),
    Choice("q8_0", 1.05, memory=120 * MIB, kl=(0.0006, 0.0005, 0.0007), top1=0.993),
    Choice("q4_0", 0.78, memory=85 * MIB, kl=(0.08, 0.07, 0.09), top1=0.88),
)


def table_of(*choices: Choice, **how: Any) -> dict[str, Any]:
    """The one table of a run with these levels."""
    (table,) = results_of(choices, **how).decisions
    return table


def row_of(table: dict[str, Any], level: str) -> dict[str, Any]:
    """The row of a level."""
    (row,) = [row for row in table["rows"] if row["level"] == level]
    return row


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """Three levels, one repetition, no limits."""
    return table_of(*LEVELS)


def test_a_row_has_the_columns_people_choose_by(table: dict[str, Any]) -> None:
    """Level as loaded, bits, size, memory, start, speed, ratio, quality with its word."""
    row = row_of(table, "q8_0")
    values = {name: value["value"] for name, value in row["values"].items()}
    assert row["loaded_level"] == "q8_0"
    assert row["word"] == "near-lossless"
    assert values["bits_per_weight"] == pytest.approx(60 * MIB * 8 / 1e7)
    assert (values["weight_bytes"], values["rss_peak_bytes"]) == (60 * MIB, 120 * MIB)
    assert (values["load_s"], values["first_request_ms"]) == (1.25, 180.0)
    assert values["speed"] == pytest.approx(1000 / (12 * 1.05), rel=0.02)
    assert values["speed_ratio"] == pytest.approx(1.3 / 1.05, rel=0.02)
    assert (values["kl_mean"], values["top1_agreement"]) == (0.0006, 0.993)


@pytest.mark.parametrize(
    ("level", "on_disk", "in_memory", "bits"),
    [
        ("q4_0", 4.5e6, 9.0e6, 4.5),  # memory holds a copy laid out anew
        ("int8", 16e6, 8.2e6, 8.2),  # made while loading
        ("f32", 16e6, 32e6, 32.0),  # a checkpoint loaded in more bits than it has
        ("awq", 4.4e6, 5.0e6, 4.4),
        ("q8_0", None, 8.5e6, 8.5),
        ("q8_0", None, None, None),
    ],
)
def test_bits_are_those_the_level_names(
    level: str, on_disk: float | None, in_memory: float | None, bits: float
) -> None:
    """Of files and memory the one that fits the level as loaded."""
    scale = 10_000_000 / 8e6  # the fabricated model has ten million weights
    memory = {} if in_memory is None else {"weights": in_memory * scale}
    info = {"weight_bytes": on_disk and on_disk * scale, "memory": memory}
    row = row_of(table_of(Choice(level, info=info, requests=5), loads=("single_user",)), level)
    found = row["values"]["bits_per_weight"]["value"]
    assert found == (bits and pytest.approx(bits * 1.0))


def test_what_is_unknown_says_why(table: dict[str, Any]) -> None:
    """No value without a reason, for every value of every row and load."""
    for row in table["rows"]:
        for values in (row["values"], *row["loads"].values()):
            assert not [name for name, value in values.items() if value["value"] is None and not value["reason"]]
    assert row_of(table, "q8_0")["values"]["load_warm_s"]["reason"] == "it was not measured at the start"


def test_the_reference_is_the_highest_precision(table: dict[str, Any]) -> None:
    """Unless the scenario names one that was measured; to itself it has a ratio of 1 and no divergence."""
    assert table["reference"] == {"label": "f16", "why": "the highest precision measured"}
    row = row_of(table, "f16")
    assert (row["values"]["speed_ratio"]["value"], row["values"]["kl_mean"]["value"]) == (1.0, 0.0)
    assert row["word"] == "reference"


def test_the_speed_is_one_users(table: dict[str, Any]) -> None:
    """Under the load that has but one, named in words."""
    assert table["speed"] == {
        "load": "single_user",
        "name": "output_tokens_per_s_per_user",
        "text": "one user's speed (p50) under single_user",
    }


def test_without_a_single_user_the_lightest_load_counts() -> None:
    """It is found by the requests that were under way at once."""
    found = table_of(*LEVELS[:2], loads=("sustained", "more"))
    assert found["speed"]["load"] in ("sustained", "more")
    assert "under" in found["speed"]["text"]


def test_levels_with_loads_of_their_own_are_compared_by_all_users_tokens() -> None:
    """Different requests are under a load of the same name where the plans differ."""
    results = results_of(LEVELS[:2])
    for number, cell in enumerate(results.manifest.cells):
        for trial in cell.trials:
            trial.plan_hash = f"{number}"
    (found,) = decide(results.manifest, results.summary, results.validity, results.verdicts, results.facts)
    assert found["speed"]["load"] is None
    assert "own loads" in found["speed"]["text"]
    assert row_of(found, "q8_0")["values"]["speed"]["unit"] == "tokens/s"


@pytest.mark.parametrize(("doubted", "outcome"), [(None, "choice"), ((0.98, 1.02), "choice"), ((1, 3), "tie")])
def test_a_lead_that_a_doubt_may_have_made_is_none(doubted: tuple[float, float] | None, outcome: str) -> None:
    """28 % more speed is a lead; not if the time per token may be three times as long. The doubt is told beside it."""
    found = table_of(Choice("f16"), Choice("q4_0", slower=0.78, doubted=doubted), limits=["error_rate <= 50%"])
    assert found["recommendation"]["outcome"] == outcome
    assert row_of(found, "f16")["beaten_by"] == ([] if outcome == "tie" else ["q4_0"])
    told = row_of(found, "q4_0")["values"]["speed"]
    assert (told["reason"], told["invalid"]) == ("" if doubted is None else "Tokens were read in bundles.", False)


@pytest.mark.slow
def test_repetitions_give_the_ratio_its_interval() -> None:
    """From three on, paired; with one, from the intervals of both."""
    once, often = row_of(table_of(*LEVELS), "q4_0"), row_of(table_of(*LEVELS, repetitions=3), "q4_0")
    assert "another start" in once["values"]["speed_ratio"]["source"]
    assert often["values"]["speed_ratio"]["source"] == "from 3 repetitions, paired"
    assert often["values"]["speed_ratio"]["low"] < 1.3 / 0.78 < often["values"]["speed_ratio"]["high"]


def test_skipped_and_failed_levels_are_rows_too() -> None:
    """With their reason, on no front, and not chosen; one that was skipped while it ran like one that never could."""
    found = table_of(
        *LEVELS,
        Choice("q2_k", status="skipped", reason="needs at least 9 GiB, 2 GiB is free"),
        Choice("iq3", status="failed", reason="the engine exited with signal 11"),
        limits=["ttft_ms p50 <= 1000"],
    )
    skipped, failed = row_of(found, "q2_k"), row_of(found, "iq3")
    assert (skipped["status"], skipped["reason"]) == ("skipped", "needs at least 9 GiB, 2 GiB is free")
    assert skipped["values"]["weight_bytes"]["reason"] == "needs at least 9 GiB, 2 GiB is free"
    assert (failed["front"], skipped["front"]) == (None, None)
    about = {one["label"]: (one["cause"], one["about"]) for one in found["recommendation"]["out"]}
    assert about["iq3"] == ("stopped", "failed: the engine exited with signal 11")


def test_a_row_dominated_in_everything_is_not_on_the_front() -> None:
    """It says by whom."""
    found = table_of(*LEVELS, Choice("bad", 1.5, memory=300 * MIB, kl=(0.2, 0.19, 0.21)))
    assert [row["level"] for row in found["rows"] if row["front"]] == ["f16", "q8_0", "q4_0"]
    assert set(row_of(found, "bad")["beaten_by"]) == {"f16", "q8_0", "q4_0"}


def test_a_load_that_was_not_the_planned_one_ranks_no_row() -> None:
    """Its numbers stay, marked with the reason; memory, start and quality are those of the row."""
    found = table_of(*LEVELS[:2], Choice("q4_0", 0.5, memory=10 * MIB, invalid=("single_user",)))
    row = row_of(found, "q4_0")
    speed, memory = row["values"]["speed"], row["values"]["memory_peak_bytes"]
    assert (row["front"], speed["invalid"], speed["reason"]) == (None, True, "Requests were sent late.")
    assert speed["value"] == pytest.approx(1000 / (12 * 0.5), rel=0.02)
    assert row["values"]["speed_ratio"]["invalid"]
    assert (memory["value"], memory["invalid"]) == (10 * MIB, False)
    assert row["loads"]["single_user"]["error_rate"]["invalid"] is False
    assert not row["loads"]["sustained"]["ttft_p95_ms"]["invalid"]
    assert "q4_0" not in found["recommendation"]["chosen"]


def test_a_doubt_about_one_metric_leaves_the_others_alone() -> None:
    """A row is ranked by its speed though its first tokens are not known well."""
    late = Choice("q4_0", 0.5, memory=10 * MIB, poor=("ttft_ms",))
    row = row_of(table_of(*LEVELS[:2], late), "q4_0")
    assert row["front"]
    assert row["loads"]["single_user"]["ttft_p95_ms"]["invalid"]
    assert not row["values"]["speed"]["invalid"]
    miscounted = replace(late, poor=("output_tokens_per_s_per_user",))
    found = table_of(*LEVELS[:2], miscounted)
    assert (row_of(found, "q4_0")["front"], found["recommendation"]["chosen"]) == (None, ["f16", "q8_0"])


def test_rows_without_quality_are_compared_with_no_row_that_has_it() -> None:
    """And the table says so; one that is worse in all else is neither dominated nor Pareto-optimal."""
    found = table_of(*LEVELS, Choice("http", 1.0, memory=50 * MIB))
    assert any(note.endswith("theirs is unknown: http") for note in found["notes"])
    assert row_of(found, "http")["front"]
    slow = row_of(table_of(*LEVELS, Choice("slow", 3.0, memory=300 * MIB)), "slow")
    assert (slow["front"], slow["beaten_by"]) == (None, [])
    assert "quality was not measured" in table_of(*(Choice("f16"), Choice("q4", 0.8)))["notes"][0]


def bounded(choice: Choice, low: float) -> Choice:
    """Of its divergence only a lower bound is known."""
    return replace(choice, kl=(math.nan, low, math.inf))


def test_a_bound_on_quality_is_shown_and_rules_out_words() -> None:
    """It is not called unmeasured, and it is no figure to be compared by."""
    found = table_of(LEVELS[0], bounded(LEVELS[1], 0.002), bounded(LEVELS[2], 0.06))
    assert [row["word"] for row in found["rows"]] == ["reference", "good at best", "poor"]
    value = row_of(found, "q8_0")["values"]["kl_mean"]
    assert (value["value"], value["low"], value["bound"]) == (None, 0.002, "lower")
    assert "only a lower bound can be told" in value["reason"]
    notes = " ".join(found["notes"])
    assert "of their KL a lower bound is known: q8_0, q4_0" in notes
    assert "not measured" not in notes
    assert "unknown" not in notes
    alone = table_of(bounded(LEVELS[1], 0.002), bounded(LEVELS[2], 0.06))["notes"]
    assert not any("not measured" in note for note in alone)


def test_a_word_says_what_the_interval_leaves_open() -> None:
    """Not what its middle would be."""
    found = table_of(LEVELS[0], Choice("q8_0", kl=(0.0009, 0.0004, 0.004), top1=0.99))
    assert row_of(found, "q8_0")["word"] == "near-lossless to good"


def scored(manifest: Manifest, **quality: Any) -> Manifest:
    """A manifest whose cells were scored so."""
    return again(manifest, cells=[again(cell, quality=quality) for cell in manifest.cells])


def test_the_distance_from_a_quantized_reference_is_no_quality() -> None:
    """It has no word, no row is compared by it, and both the reference and a note say so."""
    levels = [replace(one, reference="q8_0") for one in LEVELS]
    results = results_of(levels)
    named = {"model": "tiny", "engine": "simulated", "level": "q8_0", "variant": None}
    told = scored(results.manifest, reference=named, reference_level="q8_0")
    (found,) = decide(told, results.summary, results.validity, results.verdicts)
    assert found["reference"] == {"label": "q8_0", "why": "the reference of quality, itself quantized (q8_0)"}
    assert [row["word"] for row in found["rows"]] == ["", "reference", ""]
    assert any("the reference is itself quantized (q8_0)" in note for note in found["notes"])
    assert row_of(found, "q4_0")["front"]
    assert row_of(found, "f16")["beaten_by"] == ["q8_0", "q4_0"]  # by speed and memory alone
    old = scored(results.manifest, reference=named)
    (before,) = decide(old, results.summary, results.validity, results.verdicts)
    assert [row["word"] for row in before["rows"]] == ["", "reference", ""]


@pytest.mark.parametrize(("level", "label"), [(None, "simulated"), ("q4_k_m", "q4_k_m")])
def test_the_reference_is_the_row_with_all_its_names(level: str | None, label: str) -> None:
    """A reference without a level is the row without one, not the first of its engine."""
    results = results_of([replace(LEVELS[1], level="q4_k_m"), replace(LEVELS[0], level="f16")])
    named = {"model": "tiny", "engine": "simulated", "level": level, "variant": None}
    manifest = scored(results.manifest, reference=named)
    manifest.cells[1].level = None
    (found,) = decide(manifest, results.summary, results.validity, results.verdicts)
    assert found["reference"]["label"] == label


def test_of_levels_with_as_many_bits_by_name_that_which_takes_more_is_the_more_precise() -> None:
    """Where nothing was scored, speed is told against the highest precision, whatever the order of the rows."""
    levels = [Choice("q4_0", memory=90 * MIB), Choice("q4_k_m", memory=100 * MIB)]
    assert table_of(*levels)["reference"]["label"] == "q4_k_m"
    assert table_of(*reversed(levels))["reference"]["label"] == "q4_k_m"


def test_memory_that_holds_more_than_the_engine_is_told() -> None:
    """In process it is that of the whole trial; only where others are beside it, which it would be compared with."""
    inside = Choice("inside", info={"in_process": True})
    assert any("own client too: inside" in note for note in table_of(inside, Choice("f16"))["notes"])
    assert not any("own client" in note for note in table_of(inside, replace(inside, level="q4"))["notes"])


def test_memory_of_gpus_and_of_the_host_is_not_compared() -> None:
    """A row on a GPU is not dominated by one that uses none."""
    from harness.verdict.decision.rows import Row, Value

    values = {"gpu_memory_peak_bytes": Value(1e9), "rss_peak_bytes": Value(2e9)}
    cells = [CellEntry(engine_info=EngineEntry(device=device)) for device in ("cuda:0", "cpu")]
    rows = [Row(("m", "e", "f16", ""), [cell], values=values) for cell in cells]
    assert [row.memory_name for row in rows] == ["gpu_memory_peak_bytes", "rss_peak_bytes"]


def test_each_model_has_a_table() -> None:
    """In the order of the matrix."""
    one, other = results_of(LEVELS[:1]), results_of(LEVELS[:1], model="small")
    cells = [*one.manifest.cells, *(again(cell, id=f"other-{cell.id}") for cell in other.manifest.cells)]
    found = decide(again(one.manifest, cells=cells), one.summary, one.validity, [])
    assert [table["model"] for table in found] == ["tiny", "small"]


@pytest.mark.parametrize(
    ("limits", "outcome", "code"),
    [
        (["ttft_ms p50 <= 1000"], "choice", ExitCode.HOLDS),
        (["ttft_ms p50 <= 1000", "kl_mean <= 0.01"], "choice", ExitCode.HOLDS),
        (["ttft_ms p50 <= 1"], "none", ExitCode.LIMIT_BROKEN),
        (["ttft_ms p50 <= 1000", "kl_mean <= 0.0001"], "none", ExitCode.LIMIT_BROKEN),
    ],
)
def test_the_sentence_agrees_with_the_exit_code(limits: list[str], outcome: str, code: ExitCode) -> None:
    """With `decide: any` the run holds exactly where a row can be recommended."""
    levels = (LEVELS[1], LEVELS[2], Choice("q5", 1.0, kl=(0.02, 0.019, 0.021)))
    results = results_of(levels, limits=limits)
    assert (results.decisions[0]["recommendation"]["outcome"], results.exit_code) == (outcome, code)


def test_a_level_that_holds_under_one_load_only_does_not_hold() -> None:
    """Neither for the sentence nor for the exit code: a choice runs under all its loads."""
    choice = Choice("q8_0", invalid=("sustained",))
    results = results_of([choice, Choice("q4_0", 30.0)], limits=["ttft_ms p50 <= 1000"])
    assert results.decisions[0]["recommendation"]["outcome"] == "none"
    assert results.exit_code is not ExitCode.HOLDS


def test_numbers_are_numbers(table: dict[str, Any]) -> None:
    """No NaN gets out: JSON has none."""
    for row in table["rows"]:
        for values in (row["values"], *row["loads"].values()):
            for value in values.values():
                assert all(value[name] is None or math.isfinite(value[name]) for name in ("value", "low", "high"))


def test_only_the_reference_of_quality_is_taken_to_equal_itself() -> None:
    """Where quality was measured against a level that is no row, the highest precision has no figures of its own."""
    found = results_of([Choice("f16"), LEVELS[1]])
    manifest = again(found.manifest, scenario={"quality": {"reference": {"engine": None, "quantization": "f32"}}})
    (table,) = decide(manifest, found.summary, found.validity, found.verdicts)
    row = row_of(table, "f16")
    assert (row["values"]["kl_mean"]["value"], row["word"]) == (None, "")
    assert "no row of this table" in table["reference"]["why"]


def test_the_same_memory_is_nobodys_strength() -> None:
    """Of rows that take as much, none takes the least."""
    same = table_of(Choice("f16", kl=(0.0, 0.0, 0.0)), Choice("q8_0", 0.8, kl=(0.1, 0.09, 0.11)))
    assert same["recommendation"]["smallest"] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prefix_cache": True}, True),
        ({"prefix_cache": True, "cache_ram_mib": None}, True),
        ({"prefix_cache": True, "cache_ram_mib": 0}, False),
        ({"prefix_cache": False}, False),
    ],
)
def test_memory_that_grows_with_the_requests_is_told(options: dict[str, Any], told: bool) -> None:
    """llama.cpp's server keeps the prompts of all requests, unless it is told otherwise."""
    server = Choice("q8_0", engine="llama-server", info={"options": options})
    notes = table_of(server, Choice("f16"))["notes"]
    assert any("keeps for reuse" in note and note.endswith("llama-server · q8_0") for note in notes) == told


CLOSE = (Choice("q8_0", 1.03), Choice("f16", 1.0))


def close(**changed: Any) -> dict[str, Any]:
    """The table of two levels, one of which is 3 % slower, after 40 requests."""
    how = {"limits": ["error_rate <= 0.3"], "loads": ("single_user",)}
    return table_of(*(replace(one, requests=40, **changed) for one in CLOSE), **how)


def test_what_both_share_does_not_hide_a_difference() -> None:
    """Both were sent the same requests, some of which are slow in both: the ratio is taken request by request."""
    alone, together = close(), close(prompts=7)
    assert alone["recommendation"]["race"]["certainty"] != "sure"
    choice = together["recommendation"]
    assert (choice["outcome"], choice["chosen"], choice["race"]["certainty"]) == ("choice", ["f16"], "sure")
    assert row_of(together, "q8_0")["beaten_by"] == ["f16"]
    assert row_of(alone, "q8_0")["beaten_by"] == []
    ratio = row_of(together, "q8_0")["values"]["speed_ratio"]
    assert ratio["value"] == pytest.approx(1 / 1.03, rel=1e-3)
    assert 0.96 < ratio["low"] <= ratio["value"] <= ratio["high"] < 1
    assert ratio["source"] == "request by request; how much another start would change is not in it"


def test_the_same_speed_is_none_the_faster_however_well_it_is_known() -> None:
    """Within 1 %, both are named."""
    pair = [replace(one, slower=slower, prompts=7) for one, slower in zip(CLOSE, (1.005, 1.0), strict=True)]
    table = table_of(*pair, limits=["error_rate <= 0.1"])
    assert table["recommendation"]["outcome"] == "tie"
    assert row_of(table, "q8_0")["beaten_by"] == []
