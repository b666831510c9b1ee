"""Judge whether replies were streamed, and whether one stall of the server decides the tail."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.analysis.columns import NS_PER_MS, NS_PER_S, Columns
from harness.analysis.latencies import of_each
from harness.analysis.lateness import Silence, lag_ns, longest_silence
from harness.analysis.reading import Reading
from harness.analysis.stats import Flags, quantile
from harness.store.manifest import ClientEntry
from harness.verdict import thresholds
from harness.verdict.client import Readings
from harness.verdict.reason import Level, Reason
from harness.verdict.tolerance import Tolerance, doubted, number, without

_OF_STREAM = ("ttft_ms", "ttft_service_ms", "ttfo_ms", "ttfo_service_ms", "tpot_ms", "tpot_adj_ms", "itl_ms", "icl_ms")


def not_streamed(reading: Reading) -> Iterator[Reason]:
    """Yield the reason of replies that came in one piece though they were asked as a stream (D11).

    A short time between the tokens is not enough: where requests queue, it is short beside the wait.
    """
    rows, reads = reading.columns.measured, reading.reads.where(reading.columns.measured_rows)
    first, last = rows.times["first_token"], rows.times["last_token"]
    whole = rows.ok & np.isfinite(first) & (rows.counts["output_tokens"] >= thresholds.LEAST_STREAMED_TOKENS.value)
    took = (last - rows.times["sent"])[whole]
    if not len(took):
        return
    in_first_read = reads.together[whole] / np.maximum(rows.each.sizes[whole], 1)
    gap_ms = (last - first)[whole] / (rows.counts["output_tokens"][whole] - 1) / NS_PER_MS
    at_once = quantile(in_first_read, 0.5) >= thresholds.IN_ONE_READ.value
    if not at_once and quantile(gap_ms, 0.5) > thresholds.FASTEST_TOKEN_MS.value:
        return  # streamed, after a long wait
    share = quantile((last - first)[whole] / np.maximum(took, 1.0), 0.5)
    least = thresholds.LEAST_STREAMED_MS if share > 0 else thresholds.FLOOR_MS  # a TPOT of 0 is none of any server
    if quantile(took, 0.5) / NS_PER_MS < least.value:
        return
    sentence = (
        f"Replies came in one piece: all tokens within {share:.1%} of the end-to-end time. "
        "TTFT is the time of the whole reply."
    )
    advice = "Look for a proxy that holds streams back (buffering), or for a busy machine, or judge by E2E."
    yield from thresholds.NOT_STREAMED.reasons(share, sentence, advice, _OF_STREAM)


def bundled(client: ClientEntry | None) -> Iterator[Reason]:
    """Yield a note on gaps between chunks that came together: they cannot be seen."""
    share = Readings.of(client)["merged_read_share"]
    sentence = f"Inter-token latency is not resolved: {share:.0%} of the chunks came in bundles."
    advice = "Use TPOT, or look for a proxy that buffers."
    yield from thresholds.BUNDLED.reasons(share, sentence, advice, ("itl_ms", "icl_ms", "stall_max_ms"), note=True)


def stalled(reading: Reading, tolerance: Tolerance) -> Iterator[Reason]:
    """Yield the reason of a tail that one stall of the server decides (D13)."""
    rows = reading.columns.measured
    silence = longest_silence(rows)
    if silence is None or int(rows.ok.sum()) < thresholds.LEAST_FOR_STALL.value or not _is_stall(silence):
        return
    end_ns = silence.start_ns + silence.seconds * NS_PER_S
    if _own_stall(reading, rows, silence.start_ns, end_ns):
        return
    with np.errstate(invalid="ignore"):
        hit: Flags = (rows.times["due"] < end_ns) & (rows.ended > silence.start_ns)
    effects = []
    for name in ("ttft_ms", "e2e_ms"):
        values = of_each(rows)[name]
        known = np.isfinite(values)
        effects += tolerance.effects_on(name, values[known], values[known & ~hit])
    kept, size = tolerance.largest(effects)
    if kept:
        sentence = (
            f"No token of {silence.in_flight} replies in flight came for {number(silence.seconds)} s, "
            f"{number(silence.start_ns / NS_PER_S)} s after the start. This one event decides the tail: "
            f"{without(kept[0])} it."
        )
        advice = "Look at the server at that time, and measure longer to learn how often it happens."
        yield Reason("stall", Level.WARN, sentence, advice, doubted(kept), kept, size)


def _is_stall(silence: Silence) -> bool:
    return (
        silence.seconds >= thresholds.STALL_S.value
        and silence.seconds >= thresholds.STALL_TIMES.value * silence.typical_s
        and silence.in_flight >= thresholds.STALL_REPLIES.value
    )


def _own_stall(reading: Reading, rows: Columns, begin_ns: float, end_ns: float) -> bool:
    """Return whether the load generator stood still meanwhile: requests left late, or the first read waited."""
    own_ns = thresholds.OWN_PART.value * (end_ns - begin_ns)
    during = (rows.times["due"] >= begin_ns) & (rows.times["due"] <= end_ns)
    lags = lag_ns(rows)[during]
    if len(lags) and np.nanmedian(lags) > own_ns:
        return True
    waited_ms = reading.reads.where(reading.columns.measured_rows).waited_ms
    after = (rows.times["first_token"] >= begin_ns) & (rows.times["first_token"] <= end_ns + own_ns)
    waits = waited_ms[after]
    return bool(len(waits)) and bool(np.nanmax(np.nan_to_num(waits)) * NS_PER_MS > own_ns)
