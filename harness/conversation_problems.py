"""Mistakes between loads and conversations: who has turns must be able to wait for a reply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.errors import Problem
from harness.loads import Load, OpenOrClosed, Sessions, SingleUser
from harness.traffic_section import TrafficClass, Workload


def conversation_problems(
    loads: Mapping[str, Load], workload: Workload, classes: Mapping[str, TrafficClass]
) -> Iterator[Problem]:
    """What cannot be planned. loads: by their keys in the file."""
    talks = [load for load in loads.values() if isinstance(load, Sessions)]
    yield from _load_problems(loads, workload)
    for name, one in classes.items():
        if one.workload is not None and (one.workload.turns or one.workload.think_time):
            why = "conversations are not mixed with other traffic; write `turns` in `workload`"
            yield Problem(why, key=f"classes.{name}.workload")
    if workload.think_time is not None and workload.turns is None and not talks:
        why = "is the time between the turns of a conversation; add `turns`, or write `think_time` in the load"
        yield Problem(why, key="workload.think_time")
    if workload.repeat is not None and talks:
        why = "cannot be given with `kind: sessions`: with what was said before, no turn is like another; leave it out"
        yield Problem(why, key="workload.repeat")
    if talks or workload.turns is not None:
        yield from _prompt_problems(workload)


def _load_problems(loads: Mapping[str, Load], workload: Workload) -> Iterator[Problem]:
    for key, load in loads.items():
        if isinstance(load, Sessions):
            if load.turns is None and workload.turns is None:
                yield Problem("needs `turns`, such as `turns: 3`, here or in `workload`", key=key)
        elif workload.turns is None:
            continue
        elif load.kind == "mixed":
            yield Problem("`workload.turns` does not go with `kind: mixed`; write it without classes", key=key)
        elif not isinstance(load, SingleUser) and not (isinstance(load, OpenOrClosed) and load.users is not None):
            why = "`workload.turns` needs somebody who waits for replies: `users`, `single_user` or `kind: sessions`"
            yield Problem(f"{why}; a `{load.kind}` at a rate has nobody", key=key)


def _prompt_problems(workload: Workload) -> Iterator[Problem]:
    if workload.prompts is None or not workload.prompts.is_file():
        return
    from harness.prompts import FilePrompts  # here, because it needs numpy, which `harness list` does without

    if not FilePrompts(workload.prompts, None).all_text:
        why = "has prompts as token ids, to which no reply can be joined; conversations need texts"
        yield Problem(why, key="workload.prompts", file=str(workload.prompts))


def loads_by_key(loads: Sequence[Load], blocks: Sequence[Sequence[Load] | None]) -> dict[str, Load]:
    """All loads of a scenario by their keys in the file: its own, and those of its engine blocks."""
    found: dict[str, Load] = {f"load.{number}": load for number, load in enumerate(loads)}
    for place, own in enumerate(blocks):
        found |= {f"engines.{place}.load.{number}": load for number, load in enumerate(own or ())}
    return found
