"""Board: every series of a nightly history, judged, as plain data; the input of the site, the feed and the alerts.

A time is ISO 8601 in UTC. An unknown number is None. A change is the ratio of the level after to the level before
(1.187 is +18.7 %), or their difference if the series has `scale` "points".
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NotRequired, TypedDict
from urllib.parse import quote

from reports.comparison import change_text, number_name
from reports.format import BINARY, THIN, UNKNOWN, amount, count, dotted, grouped
from reports.names import listed

STATES = ("regressed", "no data", "machine changed", "method changed", "noisy", "improved", "ok")
"""States of a series, the one to look at first before the others."""
TONES = {"regressed": "bad", "improved": "good", "ok": "good"}
WRONG = frozenset(STATES) - {"ok", "improved", "noisy"}
CONFIG = ("scenario", "model", "engine", "level", "variant", "load", "tool", "machine")
"""Parts of a key that name what is measured, without the number."""
RESETS = ("plan", "method", "machine")
"""Kinds of events from which on earlier nights are no measure."""
TITLE = "Nightly history"
_BYTES, _SHARE = "bytes", "share"


class Point(TypedDict):
    """Number of one night.

    Attributes:
        label: Version that was measured, such as a commit; "" if unknown.
        low, high: Ends of the 95 % interval.
        run: Name of the stored run; "" if unknown.
        doubt: Why its data is poor; "" if it is not.
    """

    at: str
    label: str
    value: float | None
    low: float | None
    high: float | None
    run: str
    doubt: str


class Change(TypedDict):
    """Change of the level.

    Attributes:
        at: First night of the new level.
        low, high: Ends of the change's interval.
        p: p-value of the test that found it.
        state: State of the series that it led to, such as "regressed".
        confirmed: Whether interleaved pairs of both versions agree; None if they were not measured.
        creep: Whether it came little by little, so that the level does not step there.
    """

    at: str
    change: float | None
    low: float | None
    high: float | None
    p: float | None
    state: str
    confirmed: bool | None
    creep: NotRequired[bool]


class Event(TypedDict):
    """Event that explains a change: `kind` is "plan", "method", "machine", "release" or "note"."""

    at: str
    kind: str
    text: str


class Key(TypedDict):
    """Parts of the key of a series, as `harness.history.series.Key` has them; "" for a part that it lacks."""

    scenario: str
    load: str
    class_name: str
    metric: str
    statistic: str
    model: str
    engine: str
    level: str
    variant: str
    machine: str
    tool: str


class Series(TypedDict):
    """Series with its state.

    Attributes:
        id: Identity, the same every night; the address of its page is made from it.
        unit: Unit of its values, such as "ms".
        better: "lower" or "higher".
        state: One of STATES.
        why: Reason for the state in a sentence; "" if there is none.
        points: Nights, oldest first.
        report: Address of the page of a run, with `{run}` for its name; None if runs have no pages. If relative, then
            to the folder of the site.
        scale: "ratio" (the default) or "points": unit of its changes.
        wants_run: Whether a large change in a single night is to be measured once more.
    """

    id: str
    name: str
    key: Key
    unit: str
    better: str
    state: str
    why: str
    points: Sequence[Point]
    changes: Sequence[Change]
    events: Sequence[Event]
    report: str | None
    scale: NotRequired[str]
    wants_run: NotRequired[bool]


class Alert(TypedDict):
    """Cause that one or several series share.

    Attributes:
        state: One of STATES.
        since: First night.
        change, low, high: Change of the series that changed most, with its interval.
        series: Identities of the series.
        suspects: Label of the last night before and of the first night after; empty if unknown.
        cause: Cause in a sentence; "" if unknown.
        confirmed: Whether interleaved pairs agree; None if they were not measured.
        told: Whether it was told before this board was made.
        shape: "creep" if it came little by little; other words count as a step.
        scale: Unit of the change, as a series has it.
        fails: Whether a number that gates regressed (the default for "regressed").
        lead: Identity of the series that changed most; the first one without it.
    """

    id: str
    state: str
    title: str
    since: str
    change: float | None
    low: float | None
    high: float | None
    series: Sequence[str]
    suspects: Sequence[str]
    cause: str
    confirmed: bool | None
    told: bool
    shape: NotRequired[str]
    scale: NotRequired[str]
    fails: NotRequired[bool]
    lead: NotRequired[str]


class Board(TypedDict):
    """All series and alerts at one time.

    Attributes:
        made: When it was made.
        title: Name of the history.
    """

    made: str
    series: Sequence[Series]
    alerts: Sequence[Alert]
    title: NotRequired[str]


def title_of(board: Board) -> str:
    """Return the name of the history."""
    return board.get("title") or TITLE


def rank(state: str) -> int:
    """Return the place of a state among STATES; an unknown one comes first, so that it is seen."""
    return STATES.index(state) if state in STATES else -1


def tone(state: str) -> str:
    """Return "good", "bad" or "doubtful"."""
    return TONES.get(state, "doubtful")


def alerts(board: Board) -> list[Alert]:
    """Return the alerts: new ones first, then by their state, then the latest."""
    latest = sorted(board["alerts"], key=lambda alert: alert["since"], reverse=True)
    return sorted(latest, key=lambda alert: (not is_new(alert), rank(alert["state"])))


def is_new(alert: Alert) -> bool:
    """Return whether people are to be told: not before, and not where pairs of both versions found no change."""
    return not alert["told"] and alert["confirmed"] is not False


def fails(alert: Alert) -> bool:
    """Return whether an alert is a regression that is new."""
    return is_new(alert) and alert["state"] == "regressed" and alert.get("fails", True)


def wrong(board: Board) -> list[Series]:
    """Return the series that are not well, the worst state first."""
    found = [one for one in board["series"] if one["state"] in WRONG or one["state"] not in STATES]
    return sorted(found, key=lambda one: rank(one["state"]))


def counts(board: Board) -> list[tuple[str, int]]:
    """Return each state that occurs, with its number of series."""
    states = sorted((one["state"] for one in board["series"]), key=rank)
    return [(state, len(list(same))) for state, same in groupby(states)]


def verdict(board: Board) -> tuple[str, str]:
    """Return the answer of the night in a few words, and its tone."""
    fresh = sorted({alert["state"] for alert in board["alerts"] if is_new(alert)}, key=rank)
    if fresh:
        number = sum(map(is_new, board["alerts"]))
        return f"{count(number, 'new alert')}: {', '.join(fresh)}", tone(fresh[0])
    if open_ := wrong(board):
        return f"Nothing new; {len(open_)} series not ok", "doubtful"
    return ("No series yet", "doubtful") if not board["series"] else ("Nothing new, nothing wrong", "good")


def number_of(series: Series) -> str:
    """Return the name of the number: "TTFT p95"."""
    key = series["key"]
    return number_name({"metric": key["metric"], "statistic": key["statistic"], "class": key["class_name"] or "all"})


def differing(board: Board) -> list[str]:
    """Return the parts of CONFIG in which series differ."""
    known: dict[str, set[str]] = {part: set() for part in CONFIG}
    for one in board["series"]:
        for part, seen in known.items():
            seen.add(_part(one, part))
    return [part for part, seen in known.items() if len(seen) > 1]


def shared(board: Board) -> str:
    """Return what all series have in common."""
    apart = differing(board)
    first = board["series"][0] if board["series"] else None
    return "" if first is None else dotted(_part(first, part) for part in CONFIG if part not in apart)


def place_of(series: Series, parts: Iterable[str]) -> str:
    """Return what is measured, by some parts of the key: "llama · q4_k_m · chat"."""
    return dotted(_part(series, part) for part in parts)


def _part(series: Series, part: str) -> str:
    key: Mapping[str, object] = series["key"]
    text = str(key.get(part) or "")
    return text[:12] if part == "machine" else text  # a hash


def value_text(series: Series, value: float | None, *, unit: bool = True) -> str:
    """Return a value of a series with its unit."""
    if value is None or not known(value):
        return UNKNOWN
    name = series["unit"]
    text = amount(value, show=_show(series))
    return f"{text}{THIN}{name}" if unit and name and name not in (_BYTES, _SHARE) else text


def interval_text(series: Series, low: float | None, high: float | None) -> str:
    """Return an interval by its ends, "" if one is unknown."""
    if low is None or high is None or not (known(low) and known(high)):
        return ""
    show = _show(series)
    return f"{amount(low, show=show)} – {amount(high, show=show)}"


def _show(series: Series) -> str:
    return {"ms": "time", _SHARE: "share", _BYTES: "bytes"}.get(series["unit"], "number")


def axis_unit(series: Series, greatest: float) -> tuple[float, str]:
    """Return the factor and the name of the unit in which an axis shows values up to the greatest."""
    if series["unit"] == _SHARE:
        return 0.01, f"{THIN}%"
    if series["unit"] == _BYTES and greatest >= 1:
        power = min(int(math.log(greatest, 1024)), len(BINARY) - 1)
        return 1024.0**power, f"{THIN}{BINARY[power]}"
    return 1.0, ""


def changed(series: Series, change: float | None) -> str:
    """Return a change of a series with its sign: "+18.7 %"."""
    return change_text(change if known(change) else None, series.get("scale", "ratio"))


def change_with_interval(one: Change | Alert, scale: str = "ratio") -> str:
    """Return a change with its interval: "+18.7 % [+17.2 %, +20.1 %]"."""
    ends = [change_text(end if known(end) else None, scale) for end in (one["low"], one["high"])]
    about = "" if UNKNOWN in ends else f" [{ends[0]}, {ends[1]}]"
    return change_text(one["change"] if known(one["change"]) else None, scale) + about


def against(series: Series, value: float | None, level: float | None) -> float | None:
    """Return the change of a value against a level, in the scale of the series."""
    if value is None or level is None or not (known(value) and known(level)):
        return None
    if series.get("scale", "ratio") == "points":
        return value - level
    return value / level if level > 0 else None


def known(value: float | None) -> bool:
    """Return whether a number is known."""
    return value is not None and math.isfinite(value)


def day(at: str) -> str:
    """Return the date of a time."""
    return at[:10]


def suspects(alert: Alert) -> str:
    """Return the range of versions in which the change lies: "a1b2c3d..d4e5f6a"; "" if unknown."""
    return "..".join(short_label(label) for label in alert["suspects"] if label)


def short_label(label: str) -> str:
    """Return a label; a hash of git by its first ten digits."""
    return label[:10] if len(label) == 40 and not label.strip("0123456789abcdef") else label


def confirmation(confirmed: bool | None) -> str:
    """Return whether pairs of both versions agree, in words."""
    return {True: "confirmed by pairs", False: "pairs disagree", None: "not confirmed by pairs"}[confirmed]


def facts(alert: Alert, board: Board) -> list[str]:
    """Return change, first night, number of series and suspects of an alert; what its title has is left out."""
    scales = {one.get("scale", "ratio") for one in series_of(alert, board)}
    change = change_with_interval(alert, alert.get("scale") or (scales.pop() if len(scales) == 1 else "ratio"))
    found = change if known(alert["change"]) and change.split(THIN)[0] not in alert["title"] else ""
    creeps = "little by little " if alert.get("shape") == "creep" and "little by little" not in alert["title"] else ""
    parts = [found, f"{creeps}since {day(alert['since'])}"]
    parts.append(f"{grouped(str(len(alert['series'])))} series" if len(alert["series"]) != 1 else "")
    parts.append(f"suspects {suspects(alert)}" if suspects(alert) else "")
    parts.append(confirmation(alert["confirmed"]) if alert["state"] in ("regressed", "improved") else "")
    return [part for part in parts if part]


def state_beside(alert: Alert) -> str:
    """Return the state of an alert to stand beside its title; "" if the title has it."""
    return "" if alert["state"] in alert["title"] else alert["state"]


def capital(text: str) -> str:
    """Return a sentence that begins with a capital letter, unless its first word is a name in small ones."""
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


def bisect_command(alert: Alert, board: Board) -> str:
    """Return the command that finds the version in the suspect range, with half of the change as margin; "" without.

    It has no backticks and no line ends, so it may stand in Markdown as code.
    """
    found, size, ends = series_of(alert, board), alert["change"], [label for label in alert["suspects"] if label]
    steps = alert["state"] in ("regressed", "improved") and alert.get("shape") != "creep"
    clean = all(label.isprintable() and "`" not in label for label in ends)
    if not (steps and found and len(set(ends)) == 2 and clean) or size is None or not known(size):
        return ""
    one = next((each for each in found if each["id"] == alert.get("lead")), found[0])
    key = one["key"]
    points = (alert.get("scale") or one.get("scale")) == "points"
    improved = (size < (0 if points else 1)) == (one["better"] == "lower")
    if improved and not points:
        size = 1 / size if size else 0.0  # the margin is for the worse: seen from the better version
    half = 50 * (abs(size) if points else abs(size - 1))
    name = ".".join(filter(None, (key["class_name"], key["metric"])))
    number = name if key["statistic"] == "value" else f"{name} {key['statistic']}"
    margin = f"{number} {'+' if one['better'] == 'lower' else '-'}{_two_digits(half)}{'pp' if points else '%'}"
    named = " ".join(shlex.quote(short_label(label)) for label in ends)
    return f"harness bisect {named} --fail-on {shlex.quote(margin)} --scenario FILE --command COMMAND"


def _two_digits(value: float) -> str:
    """Return a number with two digits that count, and without an exponent, which no margin has."""
    return f"{float(f'{value:.2g}'):f}".rstrip("0").rstrip(".")


def sentence(alert: Alert, board: Board) -> str:
    """Return the facts of an alert in one line."""
    return dotted(facts(alert, board))


def anchor_of(alert: Alert) -> str:
    """Return the anchor of an alert on the board."""
    return f"alert-{hashlib.sha256(alert['id'].encode()).hexdigest()[:12]}"


def series_of(alert: Alert, board: Board) -> list[Series]:
    """Return the series of an alert that the board has."""
    by_id = {one["id"]: one for one in board["series"]}
    return [by_id[name] for name in alert["series"] if name in by_id]


def names_of(alert: Alert, board: Board, most: int = 4) -> str:
    """Return the names of an alert's first series."""
    return listed((one["name"] for one in series_of(alert, board)), most)


def report_address(series: Series, run: str, *, below: bool = False) -> str:
    """Return the address of a run's page; "" if it has none, or one that no browser may follow.

    Args:
        below: Whether the link stands on a page one folder below the site's.
    """
    pattern = series["report"]
    if not pattern or not run:
        return ""
    address = pattern.replace("{run}", quote(run, safe=""))
    scheme, colon, _ = address.partition(":")
    if colon and "/" not in scheme:
        return address if scheme.lower() in ("http", "https", "file") else ""
    return f"../{address}" if below and not address.startswith("/") else address
