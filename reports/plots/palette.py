"""Colours and dashes of plots."""

from __future__ import annotations

from typing import Any

# At least 3:1 on white and on the dark page; neighbours differ for the colour-blind too, and lines in their dashes
COLOURS = ("#2d78b4", "#ff4b0f", "#0fa587", "#782dff", "#d21e4b", "#1e8796", "#8778ff", "#f0694b")
DASHES: tuple[Any, ...] = ("-", (0, (7, 3)), (0, (2, 2.5)), (0, (8, 3, 2, 3)))
DOTTED = DASHES[2]
MUTED = "#7a7f87"
INK = "#010203"  # stands for the text colour of the page until the SVG is put into it
