from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.batch.manifest import Manifest, read_manifest
from gopt_geo.errors import BatchError

pytestmark = pytest.mark.brief

DONE = {"id": "a", "status": "done", "digest": "1", "pixels": 4}


def test_the_latest_line_of_a_region_counts(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        manifest.append({"id": "a", "status": "failed"})
        manifest.append({"id": "b", "status": "done"})
        manifest.append(DONE)
    assert read_manifest(path) == {"a": DONE, "b": {"id": "b", "status": "done"}}
    assert read_manifest(tmp_path / "none.jsonl") == {}


def test_a_region_begun_again_keeps_what_its_last_result_was(tmp_path: Path) -> None:
    with Manifest(tmp_path / "m") as manifest:
        manifest.append(DONE)
        manifest.append({"id": "a", "status": "started"})
        manifest.append({"id": "b", "status": "started"})
    found = read_manifest(tmp_path / "m")
    assert found["a"] == {**DONE, "started_again": True}
    assert found["b"]["status"] == "started"


@given(cut=st.integers(1, 200), size=st.integers(0, 3))
def test_wherever_a_run_is_cut_off_whole_lines_stay_and_more_can_follow(
    tmp_path_factory: pytest.TempPathFactory, cut: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "manifest.jsonl"
    lines = [json.dumps({"id": str(i), "status": "done", "text": "é" * i}).encode() + b"\n" for i in range(size + 1)]
    whole = b"".join(lines)
    left = whole[: max(0, len(whole) - cut)]
    path.write_bytes(left)
    kept = left.count(b"\n")
    assert list(read_manifest(path)) == [str(i) for i in range(kept)]
    with Manifest(path) as manifest:
        manifest.append(DONE)
    assert path.read_bytes() == b"".join(lines[:kept]) + json.dumps(DONE, separators=(",", ":")).encode() + b"\n"


def test_a_long_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b'{"id":"a","status":"done"}\n' + b"x" * 200_000)
    with Manifest(path):
        pass
    assert path.read_bytes() == b'{"id":"a","status":"done"}\n'


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[1]\n", b'{"id":1,"status":"done"}\n', b"\xff\xfe\n", b"[" * 5000 + b"\n"]
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(line + b'{"id":"a","status":"done"}\n')
    with pytest.raises(BatchError, match="line 1 is"):
        read_manifest(path)


def test_a_full_disk_leaves_the_lines_before(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "m"
    with Manifest(path) as manifest:
        manifest.append(DONE)
        before = path.read_bytes()
        import os

        real = os.write
        try:
            os.write = lambda descriptor, data: real(descriptor, data[:7])  # type: ignore[assignment]
            with pytest.raises(BatchError, match="No space left"):
                manifest.append(DONE)
        finally:
            os.write = real
    assert path.read_bytes() == before
