"""Masking: the Python function and the C one, against XOR a byte at a time."""

from __future__ import annotations

import concurrent.futures
import importlib
import os
import random
import subprocess
import sys
from typing import Callable

import pytest

from faye_wsgi.driver import masking

Mask = Callable[..., bytes]


@pytest.fixture(params=["python", "c"])
def mask(request: pytest.FixtureRequest) -> Mask:
    """Each of the twins; the C one only where it was built."""
    if request.param == "python":
        return masking.mask_python
    try:
        return importlib.import_module("faye_wsgi.driver._speedups").mask  # type: ignore[no-any-return]
    except ImportError:
        pytest.skip("the C extension is not built")


def naive(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


SIZES = [*range(40), 63, 64, 65, 125, 126, 127, 1023, 4096, 65535, 65536, 65537]
KEYS = [bytes(4), b"\xff" * 4, b"\x37\xfa\x21\x3d", b"\x00\x00\x00\x01", b"\x80\x00\x00\x00"]


@pytest.mark.parametrize("size", SIZES)
def test_against_the_naive_way(mask: Mask, size: int) -> None:
    data = random.Random(size).getrandbits(8 * size or 1).to_bytes(size or 1, "little")[:size]
    for key in KEYS:
        masked = mask(data, key)
        assert type(masked) is bytes
        assert masked == naive(data, key)
        assert mask(masked, key) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(mask: Mask, kind: type) -> None:
    data = b"any buffer will do"
    assert mask(kind(data), KEYS[2]) == naive(data, KEYS[2])


def test_slices_at_any_offset(mask: Mask) -> None:
    data = bytes(range(100))
    for offset in range(17):
        piece = memoryview(data)[offset:]
        assert mask(piece, KEYS[2]) == naive(data[offset:], KEYS[2])


def test_leading_and_trailing_zeros_are_kept(mask: Mask) -> None:
    assert mask(bytes(9), bytes(4)) == bytes(9)
    assert mask(b"\x37\xfa\x21\x3d" * 3, KEYS[2]) == bytes(12)


def test_the_input_is_left_alone(mask: Mask) -> None:
    data = bytearray(b"unchanged")
    mask(data, KEYS[2])
    assert data == b"unchanged"


@pytest.mark.parametrize("arguments", [(), (b"x",), (b"x", b"abcd", 0), ("text", b"abcd")])
def test_wrong_arguments(mask: Mask, arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        mask(*arguments)


def test_a_variable_turns_the_c_function_off() -> None:
    program = "from faye_wsgi.driver import masking as m; print(m.mask is m.mask_python)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FAYE_WSGI_PURE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert found.stdout.strip() == "True"


def test_keys_are_never_given_twice() -> None:
    keys = {masking.random_bytes(4) for _ in range(masking.POOL_SIZE)}
    assert len(keys) > masking.POOL_SIZE - 10 and {len(key) for key in keys} == {4}
    assert [len(masking.random_bytes(size)) for size in (0, 3, 16)] == [0, 3, 16]


def test_threads_that_empty_the_pool_at_once() -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: masking.random_bytes(4), range(20_000)))
    assert {len(key) for key in keys} == {4} and len(set(keys)) > 19_900


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="nothing forks here")
def test_a_child_process_has_keys_of_its_own() -> None:
    script = (
        "import os; from faye_wsgi.driver.masking import random_bytes; random_bytes(4);"
        'child = os.fork(); keys = b"".join(random_bytes(4) for _ in range(8));'
        "child and os.waitpid(child, 0); os.write(1, keys)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=30, check=True
    )
    assert len(done.stdout) == 64 and done.stdout[:32] != done.stdout[32:]
