"""What repeated prompts tell of a server: its caches by name, whatever the noise, and nothing from too little."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.comparison.cache_audit import NONE, PREFIX, RESULT, UNKNOWN, audit_scenario, judged, times_of
from harness.scenario.reader import load_text

MS = 1_000_000
MODES = {NONE: (1.0, 1.0), PREFIX: (0.1, 1.0), RESULT: (0.02, 0.0)}


def sent(kind: str, seed: int = 0, *, noise: float = 0.05, busy: float = 1.0, tokens: int = 9) -> dict[str, list[Any]]:
    """Records of a user who repeats every second prompt: 100 ms to the first token, 10 ms a token after it.

    busy: factor by which the machine is slower in the first half.
    """
    random, rows = np.random.default_rng(seed), []
    for number in range(40):
        again = number % 2 == 1
        first, after = MODES[kind] if again else (1.0, 1.0)
        slow = (busy if number < 20 else 1.0) * random.lognormal(0, noise, 2)
        begun = 100 * first * slow[0]
        last = begun + 10 * (tokens - 1) * after * slow[1]
        rows.append((number, number - 1 if again else None, "ok", 0, begun * MS, last * MS, (last + 1) * MS))
    names = ("request", "repeats", "status", "sent_ns", "first_token_ns", "last_token_ns", "done_ns")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


@pytest.mark.parametrize("kind", [NONE, PREFIX, RESULT])
@pytest.mark.parametrize(("noise", "busy"), [(0.02, 1.0), (0.1, 1.0), (0.05, 3.0)])
def test_a_cache_has_its_name(kind: str, noise: float, busy: float) -> None:
    """Of 50 audits on a machine with noise, or one that is busy at first; the medians are told."""
    found = [judged("x", times_of(sent(kind, seed, noise=noise, busy=busy))) for seed in range(50)]
    assert sum(one.kind == kind for one in found) >= 48
    assert not [one for one in found if one.kind == RESULT and kind != RESULT]
    assert all(f"{one.distinct_ms:.3g} ms" in one.sentence for one in found if one.kind != PREFIX)


def test_each_distinct_prompt_is_compared_once() -> None:
    """Pairs that share one depend on each other: more of them would only seem to tell more."""
    records = sent(NONE) | {"repeats": [None] * 10 + [0] * 30}
    times = times_of(records).e2e
    assert len(times) == len({*times[:, 0].tolist()}) == len({*times[:, 1].tolist()}) == 10


def test_a_prefix_cache_is_told_by_its_first_tokens() -> None:
    """With both times to them: it shortens what comes before the first, and nothing after it."""
    found = judged("x", times_of(sent(PREFIX, noise=0.0)))
    expected = (
        "Repeated prompts began after 10 ms, distinct ones after 100 ms (TTFT): a prefix cache, for the tokens after"
    )
    assert found.sentence == f"{expected} took as long."


def test_tokens_that_a_network_hands_over_at_once_are_no_result_cache() -> None:
    """All but the first token of a repeat come in one packet, when the last was generated: after a prefix cache."""
    records = sent(PREFIX)
    for number in range(1, 40, 2):
        records["first_token_ns"][number] = records["last_token_ns"][number] - 1
    assert judged("x", times_of(records)).kind == UNKNOWN


def test_replies_that_are_not_streamed_do_not_tell_the_caches_apart() -> None:
    """Repeats are faster, and by which cache is unknown; where they are not, there is none."""
    for kind, expected in ((RESULT, UNKNOWN), (PREFIX, UNKNOWN), (NONE, NONE)):
        records = sent(kind) | {"first_token_ns": [None] * 40, "last_token_ns": [None] * 40}
        found = judged("x", times_of(records))
        assert found.kind == expected
        assert ("tell apart" in found.sentence) is (expected == UNKNOWN)


def test_much_noise_is_no_answer() -> None:
    """Neither a cache nor its absence is claimed."""
    assert judged("x", times_of(sent(NONE, noise=1.5))).kind == UNKNOWN


def test_failures_and_too_few_repeats_tell_nothing() -> None:
    """Only answered prompts count."""
    records = sent(RESULT) | {"status": ["ok" if number % 8 < 6 and number < 8 else "timeout" for number in range(40)]}
    found = judged("x", times_of(records))
    assert (found.kind, found.pairs, math.isnan(found.distinct_ms)) == (UNKNOWN, 3, True)
    assert found.as_data()["distinct_ms"] is None
    assert judged("x", times_of(sent(NONE) | {"status": ["timeout"] * 40})).pairs == 0


def test_the_audit_asks_the_same_configurations() -> None:
    """One user, half of whose prompts repeat; limits, classes, and the loads of engines are left out."""
    text = """
    engines: [{engine: simulated, variants: {a: {ttft_ms: 1}, b: {}}, load: [{kind: sustained, rate: 1, duration: 5s}]}]
    workload: {prompt_tokens: 64, output_tokens: 32, cancel: {share: 0.1, after: 1s}}
    load: [{kind: sustained, rate: 4, duration: 10s}]
    slo: {ttft: 1s}
    limits: ["attainment >= 0.9"]
    compare: {baseline: a, cache_audit: true}
    repetitions: 3
    """
    found = audit_scenario(load_text(text, "s.yaml"))
    (load,) = found.load
    assert (load.kind, load.requests, load.name) == ("single_user", 40, "cache-audit")
    assert (found.workload.repeat, found.workload.cancel, found.repetitions) == (0.5, None, 1)
    assert (found.limits, found.compare, found.engines[0].load) == ((), None, None)
    assert [*found.engines[0].variants] == ["a", "b"]
    assert found.workload.output_tokens == load_text(text, "s.yaml").workload.output_tokens
