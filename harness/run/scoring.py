"""Score the reference once, then every cell against it on the same token ids, in the child process of a cell.

A failure becomes the reason why there are no figures; the results of the cell's loads stay. Events: `quality_begun`,
`quality_progress` {done, chunks}, `quality` {quality: entry of the manifest}.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

import engines
from engines.base import Engine, EngineError, EngineInfo, Scores, ScoringEngine
from harness.drivers.workers.part import tokenizer_of
from harness.errors import CellSkipped, HarnessError, UsageError
from harness.processes import Emit
from harness.quality import greedy
from harness.quality.divergence import Ids, Positions, compare, joined
from harness.quality.figures import estimates
from harness.quality.responses import responses_of
from harness.quality.scores import Reference, ReferenceWriter, chunks_of, distributions, fitting_chunks, text_of
from harness.run.engine import started_event, timed_start, too_little_memory
from harness.schedule.cells import Cell, is_full
from harness.store.manifest import GreedyEntry, NamedReference, QualityEntry, RepliesEntry, StartEntry
from harness.store.streams import write_atomically
from harness.verdict.quality import indistinguishable

FLOOR_CHUNKS = 32
LONGEST_SCORING_S = 1800.0
WHAT_DIFFERS = "the engine was started again, and its sequences were cut to three quarters"
POSITIONS = "quality.parquet"


@dataclass(frozen=True, slots=True)
class QualityOrder:
    """Order of the parent to a child; JSON-able."""

    folder: str  # of the reference's scores
    making: bool  # score the reference, else the cell
    tokens: int
    chunk: int
    first: int
    name: dict[str, Any]  # of the reference
    text: str | None = None  # None for the shipped one
    level: str | None = None  # of the reference; None for the checkpoint's own


async def score_reference(cell: Cell, order: QualityOrder, emit: Emit) -> None:
    """Score the reference into its folder, a part twice for the noise floor. Raises EngineError or HarnessError."""
    folder, began = Path(order.folder), time.monotonic()
    cell = with_level(cell, order.level)
    async with started(cell, emit) as (engine, info):
        scoring = able_to_score(cell, engine)
        source, wanted = await chunks_for(cell, order, engine)
        emit({"event": "quality_begun"})
        chunks, columns, whole = await _write_scores(scoring, wanted, order.first, folder, emit)
        prompts, level = greedy.prompts_of(chunks), info.level or order.level
        continuations = [await greedy.continuation(scoring, prompt) for prompt in prompts]
    np.save(folder / "chunks.npy", chunks)
    facts = source | {
        "name": order.name,
        "level": level,
        "quantized": None if level is None else not is_full(level),
        "first": order.first,
        "columns": columns,
        "k": None if whole else columns,
        "chunks": len(chunks),
        "positions": chunks[:, order.first :].size,
        "bound": bound_sentence(len(wanted), len(chunks)),
        "prompts": prompts,
        "continuations": continuations,
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    async with started(cell, emit) as (engine, _):
        floor = await noise_floor(able_to_score(cell, engine), Reference.open(folder), emit)
    facts |= {"noise_floor": floor}
    (folder / "facts.json").write_text(json.dumps(facts))
    entry = {key: value for key, value in facts.items() if key not in ("prompts", "continuations")}
    emit({"event": "quality", "quality": entry | {"seconds": round(time.monotonic() - began, 3)}})


async def score_cell(cell: Cell, order: QualityOrder, engine: Engine, folder: Path, emit: Emit) -> None:
    """Score a started engine against the reference; store the comparison of each position."""
    began = time.monotonic()
    emit({"event": "quality_begun"})
    try:
        found = await _scored(cell, Reference.open(Path(order.folder)), engine, folder, emit)
    except (EngineError, HarnessError) as error:
        found = QualityEntry(status="failed", reason=str(error))
    except Exception as error:  # a defect of the engine; the results of the loads stay
        found = QualityEntry(status="failed", reason=f"scoring failed: {type(error).__name__}: {error}")
    found.reference = NamedReference.model_validate(order.name)
    found.seconds = round(time.monotonic() - began, 3)
    emit({"event": "quality", "quality": found.stored()})


async def _scored(cell: Cell, reference: Reference, engine: Engine, folder: Path, emit: Emit) -> QualityEntry:
    scoring = able_to_score(cell, engine)
    parts: list[Positions] = []
    widths: set[int | None] = set()
    for number, chunk in enumerate(reference.chunks):
        mine = distributions(await scoring.score(chunk.tolist(), reference.first))
        widths.add(None if mine.whole else int((~np.isnan(mine.logprobs)).sum(axis=1).min()))
        theirs, true = reference.of_chunk(number), reference.true_tokens(number)
        parts.append(await asyncio.to_thread(compare, theirs, mine, true))
        emit({"event": "quality_progress", "done": number + 1, "chunks": len(reference.chunks)})
    found = joined(parts)
    await asyncio.to_thread(store_positions, folder / POSITIONS, reference, found)
    facts = reference.facts
    limited = [k for k in (*widths, facts["k"]) if k is not None]
    replies = await responses_of(engine, facts["prompts"], tokenizer_of(cell.spec.model))
    return QualityEntry(
        status="complete",
        reason=None,
        positions=len(found.nll),
        chunks=len(reference.chunks),
        k=min(limited, default=None),
        true_unknown=int(np.isnan(found.nll).sum()),
        tokens=facts["tokens"],
        text=facts["text"],
        reference_level=facts["level"],
        beginning=await beginning_of(engine),
        noise_floor=facts["noise_floor"],
        indistinguishable=indistinguishable(float(found.kl.mean()), facts["noise_floor"]["kl_mean"]),
        greedy=GreedyEntry.model_validate(await divergence_of(scoring, facts)),
        responses=RepliesEntry.model_validate(replies),
        path=POSITIONS,
    )


async def divergence_of(engine: ScoringEngine, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first differences of the engine from the reference's greedy continuations."""
    found = []
    for prompt, continuation in zip(facts["prompts"], facts["continuations"], strict=True):
        scores = await engine.score([*prompt, *continuation], len(prompt))
        found.append(greedy.first_difference(distributions(scores), continuation))
    return greedy.summary(found)


async def _write_scores(
    engine: ScoringEngine, wanted: Ids, first: int, folder: Path, emit: Emit
) -> tuple[Ids, int, bool]:
    """Score as many chunks as fit on the disk; return them, the columns of a row, and whether these are all tokens."""
    count, number = len(wanted), 0
    with ReferenceWriter(folder) as writer:
        while number < count:
            found = distributions(await engine.score(wanted[number].tolist(), first))
            await asyncio.to_thread(writer.add, found)
            if not number:
                per_chunk = found.logprobs.size * (4 if found.whole else 8) + found.true.nbytes
                count = min(count, fitting_chunks(folder, per_chunk))
            number += 1
            emit({"event": "quality_progress", "done": number, "chunks": count})
    return wanted[:count], writer.columns, writer.whole


async def noise_floor(engine: ScoringEngine, reference: Reference, emit: Emit) -> dict[str, Any]:
    """Compare the reference with itself: the same positions after another start and in other batches."""
    first, cut = reference.first, max(reference.first + 1, reference.chunks.shape[1] * 3 // 4)
    numbers = range(min(FLOOR_CHUNKS, len(reference.chunks)))
    parts = []
    for number in numbers:
        again = distributions(await engine.score(reference.chunks[number, :cut].tolist(), first))
        before = reference.of_chunk(number).rows(slice(0, cut - first))
        parts.append(compare(before, again, reference.true_tokens(number)[: cut - first]))
        emit({"event": "quality_progress", "done": number + 1, "chunks": len(numbers)})
    found = joined(parts)
    figures = estimates(columns_of(found, np.repeat(np.array(numbers), cut - first)))
    kl = figures.get("kl_bound") or figures.get("kl_mean")
    return {
        "kl_mean": None if kl is None or not math.isfinite(kl.value) else kl.value,
        "top1_agreement": figures["top1_agreement"].value,
        "positions": len(found.nll),
        "differs": WHAT_DIFFERS,
    }


async def chunks_for(cell: Cell, order: QualityOrder, engine: Engine) -> tuple[dict[str, Any], Ids]:
    """Return the facts of the text and its chunks, by our tokenizer of the model or else the engine's own.

    Each chunk begins with the ids that the engine puts in front of a text, as it is served ("beginning"; None if
    unknown). They replace as many ids of the text.
    """
    name, text = text_of(None if order.text is None else Path(order.text))
    tokenizer = tokenizer_of(cell.spec.model)
    if tokenizer is not None:
        ids, by = await asyncio.to_thread(tokenizer.encode, text), tokenizer.name
    elif hasattr(engine, "tokenize"):
        ids, by = await engine.tokenize(text), f"{cell.engine}'s own tokenizer"
    else:
        raise UsageError(f"the tokens of {cell.model or cell.engine} are unknown: name a `model` that has a tokenizer")
    chunks, beginning = chunks_of(ids, order.tokens, order.chunk), await beginning_of(engine)
    chunks[:, : len(beginning or ())] = beginning or ()
    return {"text": name, "tokens": by, "beginning": beginning}, chunks


async def beginning_of(engine: Engine) -> list[int] | None:
    """Return the ids that an engine puts in front of a text, None if unknown."""
    found: list[int] | None = await engine.beginning() if hasattr(engine, "beginning") else None
    return found


@dataclass(frozen=True, slots=True)
class Bounded:
    """Engine with a time limit on scoring, since `alive` does not detect a hang."""

    engine: ScoringEngine
    limit_s: float = LONGEST_SCORING_S

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Score as the engine does. Raises EngineError also at the time limit."""
        try:
            async with asyncio.timeout(self.limit_s):
                return await self.engine.score(tokens, first)
        except TimeoutError:
            raise EngineError(f"{len(tokens)} tokens were not scored within {self.limit_s:g} s") from None
        except EngineError as error:
            advice = "a smaller `quality.chunk` may help"
            raise EngineError(f"{len(tokens)} tokens could not be scored at once: {error}; {advice}") from error


def able_to_score(cell: Cell, engine: Engine) -> ScoringEngine:
    """Return the engine with a time limit. Raises UsageError if it cannot score."""
    if isinstance(engine, ScoringEngine):
        return Bounded(engine)
    raise UsageError(cannot_score(cell.engine))


def cannot_score(engine: str) -> str:
    """Return the reason for an engine that cannot score."""
    return f"{engine} does not return the log-probabilities of a text, so its quality cannot be measured"


def with_level(cell: Cell, level: str | None) -> Cell:
    """Return the cell with the reference's level and the model that the scenario names."""
    if level == cell.level:
        return cell
    return replace(cell, level=level, spec=replace(cell.spec, level=level, model=cell.own_model))


def bound_sentence(wanted: int, used: int) -> str | None:
    """Return a remark if the disk allows fewer chunks than the text has."""
    if used >= wanted:
        return None
    return f"{used} of {wanted} chunks: the reference's log-probabilities may take 4 GiB and a quarter of the free disk"


def columns_of(found: Positions, chunk: Sequence[int] | np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the columns for `quality.figures.estimates`."""
    names = ("nll_reference", "nll", "kl", "kl_lower_bound", "top1_same")
    return {name: getattr(found, name) for name in names} | {"chunk": np.asarray(chunk)}


def store_positions(path: Path, reference: Reference, found: Positions) -> None:
    """Write one row per scored position."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, length = reference.chunks.shape
    place = np.arange(reference.first, length, dtype=np.int32)
    columns = {
        "chunk": np.repeat(np.arange(count, dtype=np.int32), len(place)),
        "position": np.tile(place, count),
        "token": reference.chunks[:, reference.first :].ravel(),
        "top1_same": found.top1_same,
    } | {name: getattr(found, name) for name in Positions.__slots__}
    whole = BytesIO()
    pq.write_table(pa.table(columns), whole, compression="zstd", write_page_checksum=True)
    write_atomically(path, whole.getvalue())


@asynccontextmanager
async def started(cell: Cell, emit: Emit) -> AsyncIterator[tuple[Engine, EngineInfo]]:
    """Yield the engine, started without a measurement; stop it at the end."""
    engine = engines.create(cell.spec)
    await asyncio.to_thread(engine.prepare)
    emit({"event": "prepared"})
    if (reason := await asyncio.to_thread(too_little_memory, engine, cell.spec)) is not None:
        raise CellSkipped(reason)
    try:
        emit({"event": "starting"})
        load_s, info = await timed_start(engine, None)
        emit(started_event(engine, info, StartEntry(load_s=load_s)))
        yield engine, info
    finally:
        emit({"event": "stopping"})
        await engine.stop()
