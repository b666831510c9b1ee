"""Prices: a catalogue of instances with what an hour of each costs, where that is stated, and when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from harness.errors import UsageError
from harness.prices.files import read_strict
from harness.prices.hours import MONTH_H, WorkingHours, parse_hours
from harness.scenario.base import Count, FreeText, Integer, Name, NotNegative, Positive, StrictModel, near
from harness.scenario.plan import Pricing, ShareOfHour
from harness.units import PositiveSeconds, format_bytes, parse_bytes

SHIPPED = Path(__file__).with_name("catalogue.yaml")
YEAR_H = 12 * MONTH_H
_DATE = re.compile(r"20\d\d-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?")
_EXAMPLE = "instances: {my-gpu: {date: 2026-11-30, source: our contract, on_demand: {usd_per_hour: 1.20}}}"


def _checked_date(text: str) -> str:
    if _DATE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no date; write the day of the prices, such as `2026-11-30`")
    return text


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Hours = Annotated[FreeText, AfterValidator(lambda text: parse_hours(text).text)]


class HourlyPrice(StrictModel):
    """Price of an hour. `term` of a reservation and `note` are shown beside it."""

    usd_per_hour: Positive = Field(examples=[1.006])
    term: str = ""
    note: str = ""

    @property
    def hourly_usd(self) -> float:
        return self.usd_per_hour


class SpotPrice(StrictModel):
    """Price of an hour that the provider may interrupt, with the chance that it does so within the hour."""

    usd_per_hour: Positive = Field(examples=[0.30])
    interruptions_per_hour: ShareOfHour | None = None
    note: str = ""

    @property
    def hourly_usd(self) -> float:
        return self.usd_per_hour


class OwnedPrice(StrictModel):
    """Machine that was bought: its price over its years, its power, and the room that it stands in."""

    usd: Positive = Field(examples=[12000])
    years: Positive = Field(examples=[3])
    watts: NotNegative = Field(examples=[600])
    usd_per_kwh: NotNegative = Field(examples=[0.20])
    hosting_usd_per_month: NotNegative = 0.0
    note: str = ""

    @property
    def hourly_usd(self) -> float:
        """Price of an hour, power drawn all the time: price / hours of its years + power + hosting / 730."""
        bought = self.usd / (self.years * YEAR_H)
        return bought + self.watts / 1000 * self.usd_per_kwh + self.hosting_usd_per_month / MONTH_H


class Instance(StrictModel):
    """Machine with its prices."""

    date: Annotated[str, AfterValidator(_checked_date)] = Field(examples=["2026-11-30"])
    source: Name = Field(examples=["our contract"])
    gpu: str = ""
    gpus: Annotated[Integer, Field(ge=0)] = 0
    gpu_memory: Bytes | None = None
    vcpus: Count | None = None
    memory: Bytes | None = None
    start_up_s: PositiveSeconds | None = Field(default=None, alias="start_up")
    on_demand: HourlyPrice | None = None
    spot: SpotPrice | None = None
    reserved: HourlyPrice | None = None
    owned: OwnedPrice | None = None

    @classmethod
    def check_keys(cls, given: Any) -> list[str]:
        none = not {one.value for one in Pricing} & set(given)
        return [*super().check_keys(given), *(["needs a price, such as `on_demand: {usd_per_hour: 1.20}`"] * none)]

    @property
    def hardware(self) -> str:
        """Its GPUs, processors and memory in words; "" if nothing is known."""
        sizes = [("GPU memory", self.gpu_memory), ("memory", self.memory)]
        gpus = f"{self.gpus} x {self.gpu}" if self.gpus > 1 else self.gpu
        cores = f"{self.vcpus} vCPU" if self.vcpus else ""
        known = [f"{_gigabytes(size)} {what}" for what, size in sizes if size]
        return ", ".join(filter(None, (gpus, *known[: bool(self.gpu_memory)], cores, *known[bool(self.gpu_memory) :])))

    def price(self, pricing: Pricing) -> HourlyPrice | SpotPrice | OwnedPrice | None:
        """Return a price by how it is paid, None if the catalogue has none."""
        prices: dict[Pricing, HourlyPrice | SpotPrice | OwnedPrice | None] = {
            Pricing.ON_DEMAND: self.on_demand,
            Pricing.SPOT: self.spot,
            Pricing.RESERVED: self.reserved,
            Pricing.OWNED: self.owned,
        }
        return prices[pricing]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:g} GB" if size % 10**9 == 0 else format_bytes(size)


class _File(StrictModel):
    """File of prices."""

    instances: dict[Name, Instance] = Field(default={}, examples=["{my-gpu: {...}}"])
    schedules: dict[Name, Hours] = Field(default={}, examples=["{office: mon-fri 09:00-18:00 Europe/Berlin}"])


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Instances and working hours by name; `file` is the user's own, None if there is none."""

    instances: dict[str, Instance]
    schedules: dict[str, WorkingHours]
    file: Path | None = None

    def find(self, name: str) -> Instance:
        """Return an instance. Raises UsageError for an unknown one: a similar one has another price."""
        if name not in self.instances:
            where = "the shipped prices" if self.file is None else f"{self.file} and the shipped prices"
            hint = near(name, self.instances).removesuffix("?")
            raise UsageError(f"no instance {name!r} in {where}; {hint}, or add it to a file of your own prices")
        return self.instances[name]

    def hourly(self, name: str, pricing: Pricing) -> float:
        """Return the price of an hour in USD. Raises UsageError if the catalogue has none of that kind."""
        found = self.find(name).price(pricing)
        if found is None:
            have = ", ".join(one.value for one in Pricing if self.find(name).price(one) is not None)
            raise UsageError(f"{name} has no {pricing.value} price, only {have}; add it to a file of your own prices")
        return found.hourly_usd

    def hours(self, text: str) -> WorkingHours:
        """Return working hours by their name in the catalogue, or by their text. Raises UsageError."""
        if text in self.schedules:
            return self.schedules[text]
        try:
            return parse_hours(text)
        except ValueError as error:
            raise UsageError(f"--hours: {error}; or a name of the prices: {', '.join(self.schedules)}") from None


@lru_cache(maxsize=4)
def read_catalogue(path: Path | None = None) -> Catalogue:
    """Return the shipped catalogue; instances of the user's file are added, and replace those of the same name.

    Raises ScenarioError for a wrong file.
    """
    shipped = read_strict(SHIPPED, _File, _EXAMPLE)
    own = _File() if path is None else read_strict(path, _File, _EXAMPLE)
    hours = {name: parse_hours(text) for name, text in {**shipped.schedules, **own.schedules}.items()}
    return Catalogue({**shipped.instances, **own.instances}, hours, path)
