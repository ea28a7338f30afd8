"""Which engine a URL names, and with which options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from faye_wsgi.brokers.engines import connect, partition
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.brokers.redis import RedisBroker


def test_memory() -> None:
    [broker] = connect("memory://", prefix="p", timeout=1.0, leave_seconds=1.0)
    assert isinstance(broker, MemoryBroker)


@pytest.mark.parametrize(
    "url", ["redis://localhost", "rediss://u:p@h:1/2?ssl_ca_certs=x", "unix:///tmp/redis.sock?db=3"]
)
def test_redis_connects_at_its_first_use(url: str) -> None:
    [broker] = connect(url, prefix="p", timeout=0.5)
    assert isinstance(broker, RedisBroker)
    assert broker.timeout == 0.5


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_postgres_connects_at_its_first_use(scheme: str) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    [broker] = connect(f"{scheme}://u:p@h:1/db?durable=1&max_connections=2&listen=no", timeout=0.5)
    assert type(broker).__name__ == "PostgresBroker"
    assert broker.timeout == 0.5


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost", "redis"])
def test_another_scheme_raises(url: str) -> None:
    with pytest.raises(ValueError, match="memory://, redis://, rediss://"):
        connect(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost?durable=perhaps",
        "redis://localhost?max_connections=many",
        "redis://localhost?max_connections=0",
        "redis://localhost?nonsense=1",
        "redis://localhost:nonsense/",
        "redis://localhost?db=nonsense",
        "redis+cluster://localhost?durable=1",
        "redis+sentinel://localhost/service?durable=1",
        "redis+cluster://localhost/1",
        "redis+cluster://localhost?partitions=0",
        "redis+cluster://localhost?partitions=many",
        "redis+cluster://",
    ],
)
def test_a_wrong_option_in_the_url_raises(url: str) -> None:
    with pytest.raises(ValueError):
        connect(url)


def test_a_cluster_has_a_broker_for_each_partition() -> None:
    assert len(connect("redis+cluster://a:1,b:2")) == 16
    assert len(connect("rediss+cluster://a:1?partitions=3")) == 3
    assert len(connect("redis+cluster://a:1", partitions=5)) == 5


def test_a_channel_stays_in_its_partition() -> None:
    """Over processes and releases: else what was published before would not be found."""
    assert [partition(name, 16) for name in ("room:42", "ü", "")] == [0, 5, 0]
    found = {partition(f"room:{number}", 16) for number in range(1000)}
    assert found == set(range(16))


@pytest.mark.parametrize("prefix", ["", "a{b", "}"])
def test_a_prefix_that_would_spread_the_keys_raises(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        connect("redis://localhost", prefix=prefix)


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("redis", "redis://localhost", "redis"),
        ("psycopg", "postgres://localhost", "postgres"),
    ],
)
def test_without_its_client_the_error_says_what_to_install(
    tmp_path: Path, module: str, url: str, extra: str
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ImportError('none', name={module!r})")
    script = (
        "from faye_wsgi.brokers.engines import connect\n"
        "connect('memory://')\n"
        f"try: connect({url!r})\n"
        "except ImportError as error: print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]\n"
    command = [sys.executable, "-c", path + script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"pip install 'faye_wsgi[{extra}]'" in result.stdout, result.stderr
