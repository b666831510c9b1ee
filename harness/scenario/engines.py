"""The `model` and `engines` sections of a scenario."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo

from engines import BUILT_IN, engine_class, names
from engines.base import EngineError, check_header
from engines.dialects import DIALECTS
from engines.dialects import get as dialect_of
from engines.http.addresses import NO_PROXY, UNIX_SCHEME, check_proxy
from engines.process.placeholders import PORT, names_in, problem_with
from engines.secrets import looks_secret
from harness.scenario.base import (
    AlsoAccepts,
    FreeText,
    Name,
    StrictModel,
    TextOrItems,
    items_by,
    listed,
    near,
)
from harness.scenario.loads.kinds import LoadItem
from harness.scenario.metrics_urls import MetricsPages, check_distinct, checked_address
from harness.scenario.wire import Headers, RequestKeys
from harness.units import PositiveSeconds

# Key in the context of a validation: another process has checked the engines, which may not be installed here.
CHECKED = "checked"
HTTP_KEYS = (
    *("dialect", "url", "command", "ready", "stop", "served_model"),
    *("headers", "tls", "proxy", "request", "rename"),
)


def _env_name(value: str) -> str:
    # The message omits the value, which may be the secret itself.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("must be the name of an environment variable, such as `OPENAI_API_KEY`, not its value")
    return value


def _known_engine(value: str, info: ValidationInfo) -> str:
    if not (info.context or {}).get(CHECKED) and value not in names():
        raise ValueError(f"unknown engine `{value}`; {near(value, names())}")
    return value


def known_spelling(level: str, engine: str) -> str:
    """Return a level in lower case if its engine knows it only so, else as written."""
    try:
        known = engine_class(engine).levels()
    except EngineError:
        return level
    return level.lower() if level not in known and level.lower() in known else level


def _known_spellings(levels: tuple[Level, ...], info: ValidationInfo) -> tuple[Level, ...]:
    if "engine" not in info.data:
        return levels
    return tuple(one.model_copy(update={"level": known_spelling(one.level, info.data["engine"])}) for one in levels)


def _known_dialect(value: str) -> str:
    if value not in DIALECTS:
        raise ValueError(f"unknown dialect `{value}`; {near(value, DIALECTS)}")
    return value


def _checked_urls(value: Any) -> Any:
    """Return a checked address, or a list of different ones."""
    if isinstance(value, str):
        return checked_address(value, query=True)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ValueError("must be an address, or a list of addresses such as `[http://a:8000, http://b:8000]`")
    if not value:
        raise ValueError("contains no address; write `http://host:port`")
    check_distinct(value)
    return [checked_address(url, query=True) for url in value]


def _checked_command(value: str) -> str:
    if (why := problem_with(value)) is not None:
        raise ValueError(why)
    if PORT not in names_in(value):
        raise ValueError("has no `{port}`; write it where the server takes its port")
    return value


def _checked_stop(value: str) -> str:
    if (why := problem_with(value)) is not None:
        raise ValueError(why)
    return value


def _rooted(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"must begin with `/`; write `/{value}`")
    return value


def _checked_header_names(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name in headers:
        check_header(name)
    return headers


def _checked_proxy(value: str) -> str:
    if value.lower() in ("off", "no", "false", "direct"):
        raise ValueError(f"must be an address or `{NO_PROXY}`; write `{NO_PROXY}` for a direct connection")
    check_proxy(value)
    return value


def _wasted_keys(given: Mapping[str, Any]) -> list[str]:
    """Return a problem for each key that no address beside it can use."""
    urls = [url for url in listed(given.get("url")) if isinstance(url, str)]
    if not urls or given.get("variants"):  # Variants may add addresses.
        return []
    problems = []
    if "tls" in given and not any(url.startswith("https:") for url in urls):
        problems.append("`tls` needs an address that begins with `https://`; correct `url`, or leave `tls` out")
    if given.get("proxy", NO_PROXY) != NO_PROXY and all(url.startswith(UNIX_SCHEME + ":") for url in urls):
        problems.append("`proxy` has no effect on a Unix socket; leave it out")
    return problems


def _refused_request(given: Mapping[str, Any]) -> list[str]:
    """Return the reason if the dialect beside `request` and `rename` cannot carry their keys."""
    added, renamed, dialect = given.get("request", {}), given.get("rename", {}), given.get("dialect")
    if not isinstance(dialect, str) or dialect not in DIALECTS:
        return []  # If the dialect is named elsewhere, the engine reports the mistake.
    if not isinstance(added, Mapping) or not isinstance(renamed, Mapping):
        return []
    try:
        dialect_of(dialect, added, renamed)
    except ValueError as error:
        return [str(error)]
    return []


def _checked_devices(value: Any) -> Any:
    given = [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in listed(value)]
    if [one.lower() if isinstance(one, str) else one for one in given] == ["cpu"]:
        return ["cpu"]
    if not all(isinstance(one, str) and one.isdecimal() for one in given):
        raise ValueError("must be numbers of GPUs, such as `[0, 1]`, or `cpu` alone")
    if len(set(given)) < len(given):
        raise ValueError("names a GPU twice; keep one")
    return [str(int(one)) for one in given]


def _masked(env: Mapping[str, str]) -> dict[str, str]:
    return {name: "***" if looks_secret(name) else value for name, value in env.items()}


Device = Annotated[str, AlsoAccepts({"type": "integer", "minimum": 0})]
EnvName = Annotated[str, AfterValidator(_env_name)]


class ModelEntry(StrictModel):
    """Model: hub id, folder, `.gguf` file, or a built-in name."""

    name: Name = Field(description="Hub id, folder, `.gguf` file, or built-in name such as `tiny`.", examples=["tiny"])
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.", examples=["main"])
    lora: Name | None = Field(
        default=None,
        description="LoRA adapter of the model: a folder in PEFT's layout, a hub id, or a `.gguf` file.",
        examples=["adapters/chat"],
    )


class Level(StrictModel):
    """Quantization level, with its checkpoint if that differs from `model`."""

    level: Name = Field(description="The engine's own name of the level.", examples=["q4_k_m"])
    model: Name | None = Field(default=None, description="Checkpoint of this level, if it differs from `model`.")


class Ready(StrictModel):
    """Readiness check of a server."""

    path: Annotated[str, AfterValidator(_rooted)] = Field(
        default="/health", description="Path that answers 200 once the server is ready."
    )
    timeout_s: PositiveSeconds = Field(default=300.0, alias="timeout", description="Longest wait.", examples=["5m"])


class Tls(StrictModel):
    """Certificates. Paths are relative to the scenario file; all files are in PEM format."""

    ca: Path | None = Field(
        default=None, description="Certificate authority to trust instead of the system's.", examples=["ca.pem"]
    )
    cert: Path | None = Field(default=None, description="Client certificate, for a server that requires one.")
    key: Path | None = Field(default=None, description="Key of `cert`, without a password, if it is in another file.")
    verify: bool = Field(
        default=True, description="Whether the server's certificate is checked. If not, every report says so."
    )

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        alone = "key" in given and "cert" not in given
        problems = ["`key` needs `cert`, the certificate that it belongs to"] * alone
        if given.get("verify") is False and "ca" in given:
            problems.append("`ca` has no effect with `verify: false`; leave one of them out")
        return [*super().check_keys(given), *problems]


class HttpKeys(StrictModel):
    """Keys of engine `http`, which a variant may also set."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("url", "command"),)

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        return [*super().check_keys(given), *_wasted_keys(given), *_refused_request(given)]

    dialect: Annotated[str, AfterValidator(_known_dialect)] | None = Field(
        default=None, description="API of the server.", examples=["openai-completions", "ollama-chat"]
    )
    url: Annotated[str | tuple[str, ...], BeforeValidator(_checked_urls)] | None = Field(
        default=None,
        description="Base address of a running server, or of a Unix socket: `http+unix:///path/to.sock`. Requests go "
        "to the addresses of a list in turn.",
        examples=["http://127.0.0.1:8000", ["http://a:8000", "http://b:8000"]],
    )
    command: Annotated[str, AfterValidator(_checked_command)] | None = Field(
        default=None,
        description="Command that starts the server, without a shell. `{port}`, `{model}` and `{label.NAME}` are "
        "filled in; `{{word}}` stands for `{word}`.",
        examples=["vllm serve {model} --port {port}"],
    )
    ready: Ready | None = Field(default=None, description="Readiness check of the server.")
    stop: Annotated[Name, AfterValidator(_checked_stop)] | None = Field(
        default=None,
        description="Command to stop the server, if ending its process is not enough.",
        examples=["docker rm -f harness-{port}"],
    )
    served_model: Name | None = Field(default=None, description="Model name in requests, if it differs from `model`.")
    headers: Headers | None = Field(
        default=None, description="Additional request headers. They are stored: put secret ones into `headers_env`."
    )
    tls: Tls | None = Field(default=None, description="Certificates, if those of the system are not enough.")
    proxy: Annotated[str, AfterValidator(_checked_proxy)] | None = Field(
        default=None,
        description=f"Address of a proxy, or `{NO_PROXY}`. Default: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` of the "
        "environment; servers on this machine are reached directly.",
        examples=["http://proxy:3128", NO_PROXY],
    )
    request: RequestKeys | None = Field(
        default=None,
        description="Additional keys of each request's body, beside those of the dialect. They are stored. `null` "
        "leaves out a key of the dialect.",
        examples=[{"backend": "vllm", "urgency": "high"}, {"stream_options": None}],
    )
    rename: dict[Name, Name] | None = Field(
        default=None,
        description="Names of keys in each request's body, if the server's differ from the dialect's.",
        examples=[{"max_tokens": "max_completion_tokens"}],
    )

    def http_options(self) -> dict[str, Any]:
        """Return the given keys as engine options; `ready` as {"path", "timeout_s"}."""
        given = {key: value for key, value in self if key in HTTP_KEYS and value is not None}
        if self.ready is not None:
            given["ready"] = {"path": self.ready.path, "timeout_s": self.ready.timeout_s}
        if self.tls is not None:
            given["tls"] = self.tls.model_dump(mode="json")
        return given


class Variant(HttpKeys):
    """Options that are merged over the engine's `options`. The keys of engine `http` are allowed too."""

    model_config = ConfigDict(extra="allow")

    def merged_options(self) -> dict[str, Any]:
        """Return all options that this variant sets."""
        return {**(self.model_extra or {}), **self.http_options()}


class EngineBlock(HttpKeys):
    """Engine, with the quantization levels and variants to measure."""

    mistaken_keys: ClassVar[Mapping[str, str]] = {
        "model": "unknown key; write `served_model: {value}` for the name in requests, or `model` at the top level"
    }

    engine: Annotated[str, AfterValidator(_known_engine)] = Field(
        description="Name of the engine.", examples=["llama-server"]
    )
    quantization: Annotated[tuple[Level, ...], items_by("level"), AfterValidator(_known_spellings), TextOrItems()] = (
        Field(
            default=(),
            description="Quantization levels, one configuration each. Default: the engine's own default.",
            examples=[["q8_0", "q4_k_m"]],
        )
    )
    variants: dict[Name, Variant] = Field(
        default={}, description="Variants by name: options that are merged over `options`. One configuration each."
    )
    options: dict[str, Any] = Field(default={}, description="The engine's own options.", examples=[{"n_parallel": 4}])
    python: Name | None = Field(default=None, description="Python interpreter of the engine's environment.")
    env: Annotated[dict[str, FreeText], PlainSerializer(_masked)] = Field(
        default={}, repr=False, description="Environment of the engine; secrets such as `HF_TOKEN` are masked."
    )
    devices: Annotated[tuple[Device, ...], BeforeValidator(_checked_devices), TextOrItems()] = Field(
        default=(),
        description="GPUs that the engine may use, by the driver's numbers, or `cpu`. Default: the engine's choice.",
        examples=[[0, 1], "cpu"],
    )
    start_timeout_s: PositiveSeconds = Field(
        default=900.0,
        alias="start_timeout",
        description="Longest start of the engine, downloads excluded; after that the configuration fails.",
        examples=["5m"],
    )
    load: Annotated[tuple[LoadItem, ...], Field(min_length=1)] | None = Field(
        default=None, description="Loads of this engine, instead of the scenario's `load`."
    )
    metrics_urls: MetricsPages | None = Field(
        default=None,
        description="Prometheus pages of the server, beside the engine's own page; `[]`: read none.",
        examples=[["http://gpu-host:9400/metrics"]],
    )
    api_key_env: EnvName | None = Field(
        default=None, description="Environment variable that contains the API key.", examples=["OPENAI_API_KEY"]
    )
    headers_env: Annotated[dict[str, EnvName], AfterValidator(_checked_header_names)] = Field(
        default={}, description="Header names, each with its environment variable.", examples=[{"X-Tenant": "TENANT"}]
    )

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        problems = super().check_keys(given)
        env, engine, variants = given.get("env"), given.get("engine"), given.get("variants")
        if given.get("devices") and isinstance(env, Mapping) and "CUDA_VISIBLE_DEVICES" in env:
            problems.append("`devices` and CUDA_VISIBLE_DEVICES in `env` are redundant; keep `devices`")
        if isinstance(engine, str) and engine in BUILT_IN and engine != "http":
            only_http = (*HTTP_KEYS, "api_key_env", "headers_env")
            problems += [f"`{key}` is a key of engine `http`, not of `{engine}`" for key in only_http if key in given]
        if engine == "http" and not ({"url", "command"} & given.keys()):
            options = variants.values() if isinstance(variants, Mapping) and variants else [{}]
            if not all(isinstance(one, Mapping) and (one.get("url") or one.get("command")) for one in options):
                problems.append("needs `url` (a running server) or `command` (to start one)")
        return problems

    def variables(self) -> tuple[str, ...]:
        """Return the environment variables that requests need."""
        return tuple(name for name in (self.api_key_env, *self.headers_env.values()) if name)

    def irrelevant_keys(self) -> frozenset[str]:
        return frozenset({"headers_env"} if not self.headers_env else ())
