"""What a scenario adds to requests on the wire: headers and keys of bodies. They are stored, so they hold no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from engines.base import check_header
from engines.secrets import is_secret_header
from harness.scenario.base import FreeText

_SECRET_FIELD = re.compile(
    r"(api|access|private)_?key|(auth|access|refresh|session)_?token|secret|passw|passphrase|credential|bearer"
    r"|authorization|^(token|key|auth)$",
    re.IGNORECASE,
)  # and not eos_token, stop_token_ids or prompt_cache_key


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        check_header(name, value)
        if is_secret_header(name):
            raise ValueError(f"the value of {name} would be stored; name its variable under `headers_env`")
    return headers


def _checked_request(added: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in added.items():
        if isinstance(value, Mapping):
            _checked_request(value)
        elif value is not None and _SECRET_FIELD.search(name):
            raise ValueError(f"the value of {name} would be stored; send secrets as headers, by `headers_env`")
    return added


Headers = Annotated[dict[str, FreeText], AfterValidator(_checked_headers)]
RequestKeys = Annotated[dict[str, Any], AfterValidator(_checked_request)]
