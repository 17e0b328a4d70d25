from __future__ import annotations

import threading

import pytest

from gopt_geo.scene.blockcache import BlockCache


@pytest.mark.brief
def test_a_block_is_produced_once_however_many_ask() -> None:
    cache: BlockCache[bytes] = BlockCache(100, len)
    produced: list[int] = []
    go = threading.Event()

    def produce() -> bytes:
        produced.append(1)
        go.wait(5)
        return b"x" * 60

    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(cache.get("a", produce))) for _ in range(6)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert results == [b"x" * 60] * 6
    assert len(produced) == 1
    cache.get("b", lambda: b"y" * 60)  # more than both together may hold: the older goes
    assert cache.bytes == 60
    assert cache.get("b", lambda: b"") == b"y" * 60
    assert cache.get("a", lambda: b"new") == b"new"


def test_a_failed_block_is_tried_again() -> None:
    cache: BlockCache[bytes] = BlockCache(100, len)

    def fail() -> bytes:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.get("a", fail)
    assert cache.get("a", lambda: b"ok") == b"ok"
