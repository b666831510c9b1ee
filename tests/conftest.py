"""What every test shares: no deadlines on a busy machine, a cache of its own, no secrets or proxies of the user's."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from engines.secrets import forget

settings.register_profile("tests", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("tests"), max_examples=25)  # for `make test-fast`
settings.register_profile("ci", settings.get_profile("tests"), max_examples=100)  # where nobody waits
settings.load_profile("ci" if os.environ.get("CI") else "tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes the golden files again instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files again")


def pytest_configure() -> None:
    """Under `nohup`, or behind `&` in a script, commands would ignore a signal, and never end where a test sends it."""
    for name, handler in (
        ("SIGHUP", signal.SIG_DFL),
        ("SIGQUIT", signal.SIG_DFL),
        ("SIGINT", signal.default_int_handler),
    ):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
            signal.signal(getattr(signal, name), handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end how many tests were skipped for which reason, and so what they need."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.hookimpl(trylast=True)  # when the tests have been shuffled
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let several workers begin with the files of most slow tests: at the end none is left alone with one."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def collect_what_tests_make_only() -> None:
    """Thousands of collected tests live to the end; every load driven in this process would look through them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Derived models are built once per test session, apart from the user's."""
    os.environ.setdefault("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session", autouse=True)
def offline() -> None:
    """For the whole session: a command is forked only if libraries would read there what they have read."""
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def no_secrets_of_others() -> Iterator[None]:
    """The secrets of one test are not masked in another."""
    yield
    forget()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's environment changes what a test sees."""
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
