"""Generated images: what they are, which requests share them, and how they reach a server."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from engines.base import Message, Request, Turn
from engines.dialects import get
from harness.errors import ScenarioError
from harness.records import Status
from harness.scenario.images import Images
from harness.scenario.reader import load_text
from harness.scenario.workload import Workload
from harness.schedule.images import GeneratedImages
from harness.schedule.requests import Schedule, build
from tests.conversing import served
from tests.harness.drivers.test_recorded_talks import numbered
from tests.plans import load_of, workload_of

STEADY = {"kind": "sustained", "rate": 100, "requests": 8}


def made(size: str, index: int = 0, *, count: int = 1, seed: int = 3, salt: int = 0) -> tuple[str, ...]:
    """Images of one prompt."""
    return GeneratedImages(Images(count=count, size=size), seed, salt).of(index)


def plan_of(load: dict[str, Any] | None = None, *, salt: int = 0, **workload: Any) -> Schedule:
    """A plan whose prompts have two small images."""
    return build(
        load_of(**(load or STEADY)), workload_of(**({"images": {"count": 2, "size": "8x8"}} | workload)), 5, salt=salt
    )


def data_of(image: bytes) -> bytes:
    """The pixels of a PNG as zlib reads them, which also checks their checksum."""
    at = image.index(b"IDAT")
    (length,) = struct.unpack(">I", image[at - 4 : at])
    return zlib.decompress(image[at + 4 : at + 4 + length])


@settings(max_examples=40)
@given(width=some.integers(1, 300), height=some.integers(1, 120), index=some.integers(0, 2**40))
def test_an_image_of_any_size_is_read_by_others(width: int, height: int, index: int) -> None:
    """Pillow reads size and pixels; zlib finds every row, unfiltered, and the right checksum."""
    (text,) = made(f"{width}x{height}", index)
    image = base64.b64decode(text)
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (width, height))
        pixels = np.asarray(opened)
    rows = np.frombuffer(data_of(image), dtype=np.uint8).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    assert (rows[:, 1:].reshape(height, width, 3) == pixels).all()


@given(some.lists(some.integers(0, 10_000), min_size=2, unique=True))
def test_no_two_prompts_have_the_same_image(numbers: list[int]) -> None:
    """A cache of images finds nothing; the same number always has the same."""
    images = GeneratedImages(Images(count=2, size="16x16"), 3)
    found = [one for number in numbers for one in images.of(number)]
    assert len({*found}) == len(found)
    assert found == [one for number in numbers for one in images.of(number)]


def test_another_run_has_other_images() -> None:
    """By its salt as by its seed."""
    assert len({*made("8x8"), *made("8x8", salt=1), *made("8x8", seed=4), *made("8x8", 1)}) == 4


def test_an_image_has_about_the_bytes_of_a_photograph() -> None:
    """Noise would be ten times as many, one colour a hundredth."""
    (text,) = made("512x512")
    assert 40_000 < len(base64.b64decode(text)) < 120_000


def test_each_request_has_its_own_and_a_repeat_the_same() -> None:
    """As with the texts of prompts."""
    plan = plan_of({"kind": "sustained", "rate": 100, "requests": 40}, repeat=0.5)
    by_row = {i: plan.request(i).images for i in range(40)}
    rows = {i: plan.row(i) for i in by_row}
    assert all(len(images) == 2 for images in by_row.values())
    originals = [images for i, images in by_row.items() if rows[i].repeats is None]
    assert len({*originals}) == len(originals) < 40
    assert all(by_row[i] == by_row[row.repeats] for i, row in rows.items() if row.repeats is not None)


def test_turns_of_a_conversation_share_the_images_of_its_first() -> None:
    """They are sent with each turn, as its text is, in the message where they were."""
    plan = plan_of({"kind": "sessions", "rate": 20, "sessions": 4, "turns": 3})
    records, bodies, _ = asyncio.run(served(plan, numbered, "openai-chat"))
    assert {record.status for record in records} == {Status.OK}
    sent: Counter[str] = Counter()
    for body in bodies:
        first, *later = [message["content"] for message in body["messages"]]
        assert [part["type"] for part in first] == ["image_url", "image_url", "text"]
        assert all(isinstance(content, str) for content in later)
        sent[first[0]["image_url"]["url"]] += 1
    assert [*sent.values()] == [3, 3, 3, 3]


def test_the_length_of_a_prompt_with_images_is_not_known() -> None:
    """What an image costs depends on the model: the server counts it, and no plan is compared with that."""
    plan = plan_of()
    assert {plan.row(i).prompt_tokens for i in range(8)} == {None}
    records, _, _ = asyncio.run(served(plan, numbered, "openai-chat"))
    assert {record.prompt_tokens for record in records} == {None}


def test_images_change_the_plan() -> None:
    """Its hash tells runs with and without them apart, and of other sizes."""
    plans = [
        plan_of(),
        plan_of(images=None),
        plan_of(images={"count": 1, "size": "8x8"}),
        plan_of(images={"size": "9x8"}),
    ]
    assert len({plan.plan_hash for plan in plans}) == 4


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            "openai-chat",
            [
                {"role": "system", "content": "S"},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
                        {"type": "text", "text": "Q"},
                    ],
                },
                {"role": "assistant", "content": "A"},
                {"role": "user", "content": "R"},
            ],
        ),
        (
            "anthropic-messages",
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                        {"type": "text", "text": "Q"},
                    ],
                },
                {"role": "assistant", "content": "A"},
                {"role": "user", "content": "R"},
            ],
        ),
        (
            "openai-responses",
            [
                {"role": "system", "content": "S"},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": "data:image/png;base64,iVBO"},
                        {"type": "input_text", "text": "Q"},
                    ],
                },
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
                {"role": "user", "content": "R"},
            ],
        ),
        (
            "ollama-chat",
            [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "Q", "images": ["iVBO"]},
                {"role": "assistant", "content": "A"},
                {"role": "user", "content": "R"},
            ],
        ),
    ],
)
def test_each_format_carries_them_in_its_own_way(dialect: str, expected: list[dict[str, Any]]) -> None:
    """In the user's first message, before its text."""
    request = Request("R", 8, before=(Message("system", "S"),), history=(Turn("Q", "A"),), images=("iVBO",))
    body = json.loads(get(dialect).encode(request, None).body)
    assert body.get("messages", body.get("input")) == expected
    assert body.get("system") == ("S" if dialect == "anthropic-messages" else None)


def test_ollama_generate_carries_them_beside_the_prompt() -> None:
    """As a list of their own."""
    body = json.loads(get("ollama-generate").encode(Request("Q", 8, images=("iVBO",)), None).body)
    assert (body["prompt"], body["images"]) == ("Q", ["iVBO"])


@pytest.mark.parametrize(
    ("engine", "images", "sentence"),
    [
        (
            "{engine: http, url: 'http://127.0.0.1:9'}",
            "{}",
            "the dialect openai-completions carries no images; leave it",
        ),
        ("{engine: http, url: 'http://127.0.0.1:9', dialect: tgi}", "{count: 1}", "the dialect tgi carries no images"),
        ("{engine: simulated}", "{}", "simulated takes no images"),
        (
            "{engine: http, url: 'http://127.0.0.1:9', dialect: openai-chat}",
            "{size: big}",
            "such as 512x512, found 'big'",
        ),
        (
            "{engine: http, url: 'http://127.0.0.1:9', dialect: openai-chat}",
            "{size: '0x5'}",
            "such as 512x512, found '0x5'",
        ),
    ],
)
def test_images_that_cannot_be_sent_are_a_mistake_in_the_scenario(engine: str, images: str, sentence: str) -> None:
    """They are never left out in silence."""
    text = f"engines: [{engine}]\nworkload:\n  images: {images}\nload: [{{kind: sustained, rate: 9, requests: 3}}]\n"
    with pytest.raises(ScenarioError, match=sentence) as told:
        load_text(text, "s.yaml")
    assert "s.yaml:3" in str(told.value)


def test_one_number_is_a_square() -> None:
    """Width and height are the same."""
    assert Images.model_validate({"size": 336}).pixels == (336, 336)


def test_images_stand_beside_prompts_of_a_file(tmp_path: Path) -> None:
    """A file has the questions, and the images are generated."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "What is on it?"}\n')
    asked = Workload.model_validate({"prompts": str(path), "images": {"count": 2, "size": "8x8"}})
    plan = build(load_of(**STEADY), asked, 5)
    assert (plan.request(0).prompt, len(plan.request(0).images)) == ("What is on it?", 2)
