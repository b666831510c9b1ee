"""Plans of replicas as tables and sentences; their input is the plain data of `harness plan --json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports import plan_checks as checks
from reports.format import THIN, UNKNOWN, amount, count, digits, grouped, joined
from reports.labels import LATENCIES
from reports.names import ended
from reports.tables.base import Cell, Table

Data = Mapping[str, Any]
_PRICINGS = {"on_demand": "on demand", "spot": "spot", "reserved": "reserved", "owned": "owned"}
_HOLDS = {"yes": ("holds", "good"), "no": ("fails", "bad"), "unknown": ("not sure", "doubtful")}


def money(usd: float | None) -> str:
    """Return an amount: whole dollars from 100 on, cents from 1 on, else three digits."""
    if usd is None or not math.isfinite(usd):
        return UNKNOWN
    if abs(usd) >= 100:
        return f"${usd:,.0f}"
    return f"${usd:.2f}" if abs(usd) >= 1 else f"${amount(usd)}"


def answer(data: Data) -> str:
    """Return the plan in one sentence; what keeps every candidate from having one if there is none."""
    if not data["plans"]:
        return f"No plan: {ended(data['excluded'][0]['why'])}"
    best = data["plans"][0]
    what = f"{count_of(best)}, {money(best['usd_per_month'])} a month, "
    chance = f"{_rounded_down(min(data['chance'], best['chance']))}{THIN}% confidence"
    return f"{what}hold {rate(data['demand']['peak_rps'])}{_grown(data)} with {requirements(data)} at {chance}"


def _rounded_down(chance: float) -> str:
    """Return a share in per cent, at most one decimal, never more than it is."""
    return f"{math.floor(1000 * chance + 1e-9) / 10:g}"


def count_of(plan: Data) -> str:
    """Return replicas and machine: "4 x g5.xlarge (one spare)"."""
    found = f"{plan['replicas']} x {plan['instance']}"
    spares = {0: "", 1: "one spare"}.get(plan["spares"], f"{plan['spares']} spares")
    spot = f"{plan['spot']} of all are spot" if plan["spot"] else ""
    inside = ", ".join(filter(None, (spares, spot)))
    return f"{found} ({inside})" if inside else found


def rate(rps: float | None) -> str:
    """Return a rate of requests."""
    return UNKNOWN if rps is None else f"{digits(rps, 4)} requests/s"


def _grown(data: Data) -> str:
    growth = data["demand"]["growth"]
    return f" and {100 * growth:.4g}{THIN}% growth" if growth else ""


def requirements(data: Data) -> str:
    """Return the requirements: "TTFT p95 <= 500 ms and 95 % of requests with TTFT <= 500 ms"."""
    return joined([_requirement(one, data["slo"]) for one in data["requirements"]]) or "no requirement"


def _requirement(one: Data, slo: Mapping[str, Any]) -> str:
    if one["metric"] == "attainment" and slo:
        flat = {name: bound for name, bound in slo.items() if not isinstance(bound, Mapping)}
        parts = [f"{_name(name)} <= {_bound(bound, 'ms')}" for name, bound in flat.items()]
        return f"{_bound(one['bound'], 'share')} of requests within {', '.join(parts) or 'the SLO of their class'}"
    return " ".join(
        filter(None, (_name(one["metric"]), one["statistic"], one["op"], _bound(one["bound"], one["unit"])))
    )


def _name(metric: str) -> str:
    known = {"e2e_ms": "E2E", "itl_ms": "ITL", "stall_ms": "stall"}
    return known.get(metric) or LATENCIES.get(metric, metric)


def _bound(value: float, unit: str) -> str:
    """Return a bound with its unit: "500 ms", "8 s", "95 %"."""
    if unit == "share":
        return f"{100 * value:.6g}{THIN}%"
    if unit == "ms" and value >= 1000:
        return f"{value / 1000:g}{THIN}s"
    return f"{value:g}{THIN}{unit}".rstrip(THIN)


def ranking(data: Data) -> Table:
    """Return each plan, the cheapest first."""
    head = (
        *("configuration", "machine", "replicas", "per month", "1,000 requests", "1M output", "rate of one", "chance"),
        *("KL, nats", "run"),
    )
    return Table("Plans", head, [_ranked(plan, data) for plan in data["plans"]], texts=2)


def _ranked(plan: Data, data: Data) -> tuple[Cell, ...]:
    first = plan is data["plans"][0]
    return (
        Cell(plan["name"], tone="good" if first else ""),
        Cell(plan["instance"]),
        _number(plan["replicas"], str(plan["replicas"])),
        _money(plan["usd_per_month"]),
        _money(plan["planned"]["per_1k_requests_usd"]),
        _money(plan["planned"]["per_1m_output_usd"]),
        _number(plan["rate_rps"]["lower"], rate_range(plan["rate_rps"])),
        _number(plan["chance"], share(plan["chance"])),
        _number(plan["quality"].get("kl_mean"), _kl(plan["quality"].get("kl_mean"))),
        Cell(plan["run"]),
    )


def rate_range(found: Data) -> str:
    """Return the rate that a replica holds, and the one that fails: "3 (5 fails)"."""
    lower, upper = found["lower"], found["upper"]
    return f">= {digits(lower, 4)}" if upper is None else f"{digits(lower, 4)} ({digits(upper, 4)} fails)"


def share(value: float | None) -> str:
    """Return a chance, never all or nothing of it."""
    if value is None:
        return UNKNOWN
    if value < 0.001:
        return f"< 0.1{THIN}%"
    return f"> 99.9{THIN}%" if value > 0.999 else f"{100 * value:.3g}{THIN}%"


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else amount(value, show="share")


def _kl(value: float | None) -> str:
    return UNKNOWN if value is None else amount(value)


def _number(value: float | None, text: str) -> Cell:
    return Cell(text, value=None if value is None else float(value))


def _money(usd: float | None) -> Cell:
    return _number(usd, money(usd))


def costs(data: Data) -> Table:
    """Return what each plan's money buys, at the demand and with every replica at its full rate."""
    head = (
        *("configuration", "machine", "at", "an hour", "requests/h", "1,000 requests", "1M input", "1M output"),
        *("1M tokens", "tokens per $", "J/token"),
    )
    rows = [_cost(plan, name, words) for plan in data["plans"] for name, words in _LOADS]
    foot = ("Each cost is all of the money, divided by that thing alone.", *prices(data))
    return Table("Costs", head, rows, texts=3, foot=foot)


_LOADS = (("planned", "the demand"), ("full", "full rate"))


def _cost(plan: Data, name: str, words: str) -> tuple[Cell, ...]:
    unit = plan[name]
    per_hour = plan["usd_per_month"] / 730 if name == "planned" else plan["usd_per_hour"]["on_demand"]
    tokens, joules = unit["tokens_per_usd"], plan["joules_per_output_token"]
    return (
        Cell(plan["name"]),
        Cell(plan["instance"] if name == "full" else count_of(plan)),
        Cell(f"{words}, on demand" if name == "full" and plan["pricing"] == "spot" else words),
        _number(per_hour, f"${per_hour:.3f}"),
        _number(unit["requests_per_hour"], grouped(f"{unit['requests_per_hour']:.0f}")),
        _money(unit["per_1k_requests_usd"]),
        _money(unit["per_1m_input_usd"]),
        _money(unit["per_1m_output_usd"]),
        _money(unit["per_1m_tokens_usd"]),
        _number(tokens, UNKNOWN if tokens is None else grouped(f"{tokens:.0f}")),
        _number(joules, UNKNOWN if joules is None else amount(joules)),
    )


def prices(data: Data) -> list[str]:
    """Return each price once, those of a source together, with its date."""
    by_source: dict[tuple[str, str], list[str]] = {}
    for plan in data["plans"]:
        kind = "spot" if plan["pricing"] == "spot" else "on_demand"
        note = f" ({plan['price_note']})" if plan["price_note"] else ""
        price = f"{plan['instance']} {_PRICINGS[plan['pricing']]} ${plan['usd_per_hour'][kind]:.4g}{note}"
        by_source.setdefault((plan["price_date"], plan["price_source"]), []).append(price)
    return [
        f"{', '.join(dict.fromkeys(found))} an hour, as of {date}: {source}."
        for (date, source), found in by_source.items()
    ]


def evidence(data: Data) -> str:
    """Return the run and the load that each plan rests on."""
    found = (f"{plan['name']}: load {plan['load']} of `{plan['path']}`" for plan in data["plans"])
    return " · ".join(dict.fromkeys(found))


def otherwise(data: Data) -> Table:
    """Return what the cheapest plan would be under other assumptions."""
    rows = [
        (Cell(one["what"]), Cell(one["note"]),
         _number(one["replicas"], str(one["replicas"])), _money(one["usd_per_month"]), _change(one, data))
        for one in data["otherwise"]
    ]  # fmt: skip
    return Table("Otherwise", ("what changes", "note", "replicas", "per month", "difference"), rows, texts=2)


def _change(one: Data, data: Data) -> Cell:
    change = one["usd_per_month"] - data["plans"][0]["usd_per_month"]
    if abs(change) < 0.5:
        return Cell("0", value=0.0)
    return _number(change, f"{'+' if change > 0 else '−'}{money(abs(change))}")


def tested(data: Data) -> Table:
    """Return the rates that the cheapest plan's configuration was tested at."""
    head = ("load", "least sure", "rate", "holds", "chance", "SLO met", "TTFT p95, ms", "E2E p95, ms")
    rows = []
    for one in data["tested"]:
        word, tone = _HOLDS[one["holds"]]
        rows.append(
            (
                Cell(one["load"]),
                Cell(one["least_sure"]),
                _number(one["rate_rps"], digits(one["rate_rps"], 4)),
                Cell(word, tone=tone),
                _number(one["chance"], share(one["chance"])),
                _number(one["attainment"], _share(one["attainment"])),
                _number(one["ttft_p95_ms"], _time(one["ttft_p95_ms"])),
                _number(one["e2e_p95_ms"], _time(one["e2e_p95_ms"])),
            )
        )
    run = data["plans"][0]["run"] if data["plans"] else ""
    return Table(f"Tested rates of one replica: {run}", head, rows, texts=2)


def _time(value: float | None) -> str:
    return UNKNOWN if value is None else amount(value, show="time")


def assumptions(data: Data) -> Table:
    """Return every assumption, those that the user set first; each is an option and a key of the demand file."""
    ordered = sorted(data["assumptions"], key=lambda one: not one["given"])
    rows = [(Cell(one["key"]), Cell(one["meaning"]), Cell(one["value"]), Cell("yours" if one["given"] else "default"))
            for one in ordered]  # fmt: skip
    return Table("Assumptions", ("key", "meaning", "value", "from"), rows, texts=2)


def lines(data: Data) -> list[tuple[str, str]]:
    """Return the sentences below the tables, each with its label."""
    found = [("DEMAND", demand(data))]
    if data["plans"]:
        best = data["plans"][0]
        found += [("HOURS", hours(best)), ("SURE", nines(data)), ("ADMIT", admit(best)), ("SCALE OUT", scale_out(best))]
        found += [("PRICES", " ".join(prices(data))), ("MEASURED", evidence(data))]
        found += [("SPOT", _spot(best))] if best["spot"] else []
        found += [("BREAK-EVEN", api(data))] if data["api"] else []
    found += [("QUALITY", _quality(one)) for one in data["quality_costs"]]
    found += [("LEFT OUT", f"{one['name']} on {one['instance']}: {ended(one['why'])}") for one in data["excluded"]]
    found += [("CHECKED", checks.sentence(one)) for one in data.get("checks", ()) if checks.has_sentence(one)]
    found += [("PLANNER", checks.record(data))] if data["plans"] else []
    found += [("CAVEAT", one) for one in data["caveats"]]
    open_ends = [(one["why"], one["command"]) for one in (*data["missing"], *data["excluded"])]
    open_ends += [(f"{one['what']} was not measured", one["command"]) for one in data["otherwise"]]
    return [*found, *(("MEASURE", f"{_sentence(why)} `{command}`") for why, command in open_ends if command)]


def _sentence(why: str) -> str:
    return f"{why[:1].upper()}{why[1:].rstrip('.')}:"


def demand(data: Data) -> str:
    """Return the demand in words."""
    one = data["demand"]
    found = [f"{one['source']}: peak {rate(one['peak_rps'])}, mean {rate(one['mean_rps'])}." if one["varies"] else
             f"{one['source']}."]  # fmt: skip
    if one["hours"]:
        lost = f"{100 * one['outside_hours_share']:.3g}{THIN}% of the requests are outside them and are not served"
        found.append(f"Hours {one['hours']}, {one['hours_per_month']:.4g} of 730 a month; {lost}.")
    return " ".join([*found, *one["notes"]])


def hours(plan: Data) -> str:
    """Return the hours that are paid for, against those of a perfect autoscaler."""
    perfect, own = plan["perfect_machine_hours"], plan["machine_hours"]
    unit, factor = ("GPU-hours", plan["gpus"]) if plan["gpus"] else ("machine hours", 1)
    sentence = f"{grouped(f'{own * factor:.0f}')} {unit} a month"
    return f"{sentence}; a perfect autoscaler without spares would need {grouped(f'{perfect * factor:.0f}')}."


def nines(data: Data) -> str:
    """Return what each further nine of the chance costs."""
    parts, before = [], 0.0
    for one in data["nines"]:
        asked = f"{100 * one['asked']:.6g}{THIN}%"
        if one["replicas"] is None:
            parts.append(f"{asked}: not known to be reached")
            continue
        more = one["usd_per_month"] - before
        cost = "the same" if before and more < 0.5 else f"{'+' if before else ''}{money(more)}"
        parts.append(
            f"{asked}: {one['replicas']} replicas, {cost}" if one["replicas"] > 1 else f"{asked}: 1 replica, {cost}"
        )
        before = one["usd_per_month"]
    return f"Chance that replicas running all the time hold the peak, the spares gone. {' · '.join(parts)}."


def admit(plan: Data) -> str:
    """Return the admission limit of a replica."""
    in_flight = plan["admit_in_flight"]
    more = "" if in_flight is None else f", and {count(in_flight, 'request')} in flight"
    return f"At most {rate(plan['admit_rps'])} to each replica{more}."


def scale_out(plan: Data) -> str:
    """Return the rate at which to start another replica."""
    started = plan["lead_s"] / 60
    return f"Above {rate(plan['scale_out_rps'])} for each replica: another one serves after {started:.2g} min."


def api(data: Data) -> str:
    """Return the plan against the price of an API."""
    one = data["api"]
    price = f"${one['usd_per_1m_input']:g}/${one['usd_per_1m_output']:g} per million input/output tokens"
    return (
        f"An API at {price} costs {money(one['usd_per_month'])} a month for this demand. "
        f"Both cost the same at a mean of {rate(one['break_even_rps'])}."
    )


def _spot(plan: Data) -> str:
    spares = count(plan["spot_spares"], "spot machine")
    return f"{spares} in reserve. If a whole pool is lost, the rest holds {rate(plan['pool_lost_rps'])}."


def _quality(one: Data) -> str:
    saves = one["saves_usd_per_month"]
    cost = f"{one['level']} instead of {one['instead_of']} saves {money(saves)} a month"
    kl = one["quality"].get("kl_mean")
    return f"{cost}, at KL {amount(kl)} nats." if kl is not None else f"{cost}; its quality was not measured."


def folded(data: Data) -> Sequence[str]:
    """Return what the plans do not model."""
    return [str(one) for one in data["not_modelled"]]


def tables(data: Data) -> Iterator[Table]:
    """Yield all tables that have rows, in their order."""
    checked = (checks.points(data), checks.errors(data))
    for table in (ranking(data), costs(data), otherwise(data), tested(data), *checked, assumptions(data)):
        if table.rows:
            yield table
