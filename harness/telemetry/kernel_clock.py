"""Socket options for the kernel's receive time stamps."""

from __future__ import annotations

TIMESTAMPING = 37
STAMP_RECEIVED_IN_SOFTWARE = (1 << 3) | (1 << 4)  # SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
