"""The `model` and `engines` sections of a scenario."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo

from engines import BUILT_IN, names
from engines.base import check_header
from engines.dialects import DIALECTS
from engines.dialects import get as dialect_of
from engines.http.addresses import NO_PROXY, UNIX_SCHEME, check_proxy
from harness.scenario.base import AlsoAccepts, FreeText, Name, StrictModel, TextOrItems, listed, near
from harness.scenario.loads import LoadItem
from harness.scenario.metrics_urls import MetricsPages, checked_address
from harness.scenario.source import looks_secret
from harness.units import PositiveSeconds

CHECKED = "checked"
"""Says in the context of a validation that another process has found the engines, which may not be installed here."""
HTTP_KEYS = ("dialect", "url", "command", "ready", "stop", "served_model", "headers", "tls", "proxy", "request")
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _level_from_text(value: Any) -> Any:
    return [{"level": item} if isinstance(item, str) else item for item in listed(value)]


def _env_name(value: str) -> str:
    # The value is not repeated: it may be the secret itself.
    if not _ENV_NAME.fullmatch(value):
        raise ValueError("must be the name of an environment variable, such as `OPENAI_API_KEY`, not its value")
    return value


def _known_engine(value: str, info: ValidationInfo) -> str:
    if (info.context or {}).get(CHECKED):
        return value
    known = names()
    if value not in known:
        raise ValueError(f"there is no engine `{value}`; {near(value, known)}")
    return value


def _known_dialect(value: str) -> str:
    if value not in DIALECTS:
        raise ValueError(f"there is no dialect `{value}`; {near(value, DIALECTS)}")
    return value


def _checked_urls(value: Any) -> Any:
    """One address, or a list of several that differ."""
    if isinstance(value, str):
        return checked_address(value)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ValueError("is an address, or a list of addresses such as `[http://a:8000, http://b:8000]`")
    if not value:
        raise ValueError("lists no address; write `http://host:port`")
    for url in value:
        if value.count(url) > 1:
            raise ValueError(f"lists {url} twice; keep one")
    return [checked_address(url) for url in value]


def _checked_command(value: str) -> str:
    if "{port}" not in value:
        raise ValueError("must hold `{port}` where the server takes its port")
    return value


def _rooted(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"must begin with `/`; write `/{value}`")
    return value


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        check_header(name, value)
        if looks_secret(name.replace("-", "_")) or name.lower() in _SECRET_HEADERS:
            raise ValueError(f"the value of {name} would be stored; name its variable under `headers_env`")
    return headers


def _checked_header_names(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name in headers:
        check_header(name)
    return headers


def _checked_request(added: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in added:
        if looks_secret(name):
            raise ValueError(f"the value of {name} would be stored; secrets go into headers, by `headers_env`")
    return added


def _checked_proxy(value: str) -> str:
    if value.lower() in ("off", "no", "false", "direct"):
        raise ValueError(f"is an address or `{NO_PROXY}`; write `{NO_PROXY}` for a direct connection")
    check_proxy(value)
    return value


def _wasted_keys(given: Mapping[str, Any]) -> list[str]:
    """Keys that none of the addresses beside them can use."""
    urls = [url for url in listed(given.get("url")) if isinstance(url, str)]
    if not urls or given.get("variants"):  # which may bring addresses of their own
        return []
    problems = []
    if given.get("tls") is not None and not any(url.startswith("https:") for url in urls):
        problems.append("`tls` is for addresses that begin with `https://`; correct `url`, or leave `tls` out")
    proxied = given.get("proxy") not in (None, NO_PROXY)
    if proxied and all(url.startswith(UNIX_SCHEME + ":") for url in urls):
        problems.append("a Unix socket is reached without a `proxy`; leave it out")
    return problems


def _refused_request(given: Mapping[str, Any]) -> list[str]:
    """Why the dialect that is named beside it cannot take what is to be added to requests."""
    added, dialect = given.get("request"), given.get("dialect")
    if not isinstance(added, Mapping) or not isinstance(dialect, str) or dialect not in DIALECTS:
        return []  # the engine says so where the dialect is named elsewhere
    try:
        dialect_of(dialect, added)
    except ValueError as error:
        return [str(error)]
    return []


def _checked_devices(value: Any) -> Any:
    given = [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in listed(value)]
    if given == ["cpu"]:
        return given
    if not all(isinstance(one, str) and one.isdecimal() for one in given):
        raise ValueError("are the numbers of GPUs, such as `[0, 1]`, or `cpu` alone")
    if len(set(given)) < len(given):
        raise ValueError("names a GPU twice; keep one")
    return [str(int(one)) for one in given]


def _masked(env: Mapping[str, str]) -> dict[str, str]:
    return {name: "***" if looks_secret(name) else value for name, value in env.items()}


Device = Annotated[str, AlsoAccepts({"type": "integer", "minimum": 0})]
EnvName = Annotated[str, AfterValidator(_env_name)]


class ModelEntry(StrictModel):
    """A model: hub id, folder, `.gguf` file, or a built-in name."""

    name: Name = Field(
        description="Hub id, folder, `.gguf` file, or a built-in name such as `tiny`.", examples=["tiny"]
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.", examples=["main"])
    lora: Name | None = Field(
        default=None,
        description="An adapter to put over it: a folder in PEFT's layout, a hub id, or a `.gguf` file.",
        examples=["adapters/chat"],
    )


class Level(StrictModel):
    """A quantization level, and the checkpoint that has it where that is another than `model`."""

    level: Name = Field(description="The level under the engine's own name for it.", examples=["q4_k_m"])
    model: Name | None = Field(default=None, description="The checkpoint of this level, where it is not `model`.")


class Ready(StrictModel):
    """How to see that a server is up."""

    path: Annotated[str, AfterValidator(_rooted)] = Field(
        default="/health", description="A path that answers 200 once the server can work."
    )
    timeout_s: PositiveSeconds = Field(default=300.0, alias="timeout", description="How long to wait.", examples=["5m"])


class Tls(StrictModel):
    """Whom to trust, and who we are. Paths are relative to the scenario file; all files are in PEM format."""

    ca: Path | None = Field(
        default=None, description="Trust this authority instead of the system's.", examples=["ca.pem"]
    )
    cert: Path | None = Field(default=None, description="Our certificate, for a server that asks for one.")
    key: Path | None = Field(default=None, description="Its key, without a password, where it is in another file.")

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """A key belongs to a certificate."""
        alone = "key" in given and "cert" not in given
        return [*super().check_keys(given), *(["`key` needs `cert`, the certificate that it belongs to"] * alone)]


class HttpKeys(StrictModel):
    """The keys of engine `http`, which a variant may also set."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("url", "command"),)

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Certificates and proxies that would not be used."""
        return [*super().check_keys(given), *_wasted_keys(given), *_refused_request(given)]

    dialect: Annotated[str, AfterValidator(_known_dialect)] | None = Field(
        default=None, description="The server's API.", examples=["openai-completions", "ollama-chat"]
    )
    url: Annotated[str | tuple[str, ...], BeforeValidator(_checked_urls)] | None = Field(
        default=None,
        description="Base address of a server that runs already; of a Unix socket `http+unix:///path/to.sock`. "
        "Requests go round a list of them.",
        examples=["http://127.0.0.1:8000", ["http://a:8000", "http://b:8000"]],
    )
    command: Annotated[str, AfterValidator(_checked_command)] | None = Field(
        default=None,
        description="Starts the server; `{port}` and `{model}` are filled in. No shell is involved.",
        examples=["vllm serve {model} --port {port}"],
    )
    ready: Ready | None = Field(default=None, description="How to see that the server is up.")
    stop: Name | None = Field(
        default=None,
        description="A command to run when ending the process is not enough.",
        examples=["docker rm -f harness-{port}"],
    )
    served_model: Name | None = Field(
        default=None, description="The model's name in requests, where it is not `model`."
    )
    headers: Annotated[dict[str, FreeText], AfterValidator(_checked_headers)] | None = Field(
        default=None, description="Further request headers. Stored: secret ones go to `headers_env`."
    )
    tls: Tls | None = Field(default=None, description="Certificates, where the system's trust is not enough.")
    proxy: Annotated[str, AfterValidator(_checked_proxy)] | None = Field(
        default=None,
        description=f"Address of a proxy, or `{NO_PROXY}`; without it `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` "
        "decide, and servers on this machine are reached directly.",
        examples=["http://proxy:3128", NO_PROXY],
    )

    request: Annotated[dict[str, Any], AfterValidator(_checked_request)] | None = Field(
        default=None,
        description="Further keys of each request's body, beside those that the dialect sets. Stored.",
        examples=[{"backend": "vllm", "urgency": "high"}],
    )

    def http_options(self) -> dict[str, Any]:
        """The keys that are given, as engine options; `ready` as {"path", "timeout_s"}."""
        given = {key: getattr(self, key) for key in HTTP_KEYS if getattr(self, key) is not None}
        if self.ready is not None:
            given["ready"] = {"path": self.ready.path, "timeout_s": self.ready.timeout_s}
        if self.tls is not None:
            given["tls"] = self.tls.model_dump(mode="json")
        return given


class Variant(HttpKeys):
    """Options merged over the engine's `options`; the keys of engine `http` may stand here too."""

    model_config = ConfigDict(extra="allow")

    def merged_options(self) -> dict[str, Any]:
        """Everything this variant sets."""
        return {**(self.model_extra or {}), **self.http_options()}


class EngineBlock(HttpKeys):
    """One engine, with the levels and variants to try."""

    engine: Annotated[str, AfterValidator(_known_engine)] = Field(description="Its name.", examples=["llama-server"])
    quantization: Annotated[
        tuple[Level, ...],
        BeforeValidator(_level_from_text),
        TextOrItems(),
    ] = Field(
        default=(),
        description="Levels to try, one cell each; without it the engine's default.",
        examples=[["q8_0", "q4_k_m"]],
    )
    variants: dict[Name, Variant] = Field(
        default={}, description="Name to options that are merged over `options`; one cell each."
    )
    options: dict[str, Any] = Field(default={}, description="The engine's own options.", examples=[{"n_parallel": 4}])
    python: Name | None = Field(
        default=None, description="Interpreter of the environment in which the engine is installed."
    )
    env: Annotated[dict[str, FreeText], PlainSerializer(_masked)] = Field(
        default={},
        repr=False,
        description="Environment variables for the engine's process. Stored, but for names such as `HF_TOKEN`.",
    )
    devices: Annotated[tuple[Device, ...], BeforeValidator(_checked_devices), TextOrItems()] = Field(
        default=(),
        description="The GPUs it may use, by the driver's numbers, or `cpu`; without it, its own choice.",
        examples=[[0, 1], "cpu"],
    )
    start_timeout_s: PositiveSeconds = Field(
        default=900.0,
        alias="start_timeout",
        description="How long it may take to load, once its files are here; after that the cell has failed.",
        examples=["5m"],
    )
    load: Annotated[tuple[LoadItem, ...], Field(min_length=1)] | None = Field(
        default=None, description="Replaces the scenario's `load` for this engine."
    )
    metrics_urls: MetricsPages | None = Field(
        default=None,
        description="Pages for Prometheus from which the server's own readings are taken, beside the engine's own; "
        "`[]`: read none.",
        examples=[["http://gpu-host:9400/metrics"]],
    )
    api_key_env: EnvName | None = Field(
        default=None,
        description="Name of the environment variable that holds the API key.",
        examples=["OPENAI_API_KEY"],
    )
    headers_env: Annotated[dict[str, EnvName], AfterValidator(_checked_header_names)] = Field(
        default={},
        description="Header to the name of the environment variable that holds its value.",
        examples=[{"X-Tenant": "TENANT"}],
    )

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Keys of `http` belong to it, and it needs an address or a command in every variant."""
        problems = super().check_keys(given)
        if given.get("devices") and "CUDA_VISIBLE_DEVICES" in (given.get("env") or {}):
            problems.append("`devices` and CUDA_VISIBLE_DEVICES in `env` say the same; keep `devices`")
        engine = given.get("engine")
        if isinstance(engine, str) and engine in BUILT_IN and engine != "http":
            only_http = (*HTTP_KEYS, "api_key_env", "headers_env")
            problems += [f"`{key}` is a key of engine `http`, not of `{engine}`" for key in only_http if key in given]
        if engine == "http" and not ({"url", "command"} & given.keys()):
            variants = given.get("variants")
            options = variants.values() if isinstance(variants, Mapping) and variants else [{}]
            if not all(isinstance(one, Mapping) and (one.get("url") or one.get("command")) for one in options):
                problems.append("needs `url` (a server that runs) or `command` (which starts one)")
        return problems

    def variables(self) -> tuple[str, ...]:
        """The environment variables whose values requests need."""
        return (*([self.api_key_env] if self.api_key_env else []), *self.headers_env.values())

    def irrelevant_keys(self) -> frozenset[str]:
        """Headers are a matter of `http`."""
        return frozenset({"headers_env"} if not self.headers_env else ())
