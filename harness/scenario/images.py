"""Images in prompts: how many a prompt has, and their size in pixels."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from harness.scenario.base import AlsoAccepts, Count, StrictModel

_SIZE = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})")


def _square(value: Any) -> Any:
    return f"{value}x{value}" if isinstance(value, int) and not isinstance(value, bool) else value


def _checked_size(text: str) -> str:
    if _SIZE.fullmatch(text) is None:
        raise ValueError(f"must be width x height in pixels, each up to 9999, such as 512x512, found {text!r}")
    return text


Size = Annotated[str, BeforeValidator(_square), AfterValidator(_checked_size), AlsoAccepts({"type": "integer"})]


class Images(StrictModel):
    """Generated images in each prompt, for models that read images and dialects of chat.

    No two prompts have the same image, unless they repeat one another. The images of a conversation stand in its first
    message.
    """

    count: Count = Field(default=1, le=100, description="Number of images in each prompt.", examples=[2])
    size: Size = Field(
        default="512x512", description="Width and height in pixels; one number for both.", examples=["1024x768"]
    )

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height."""
        width, _, height = self.size.partition("x")
        return int(width), int(height)
