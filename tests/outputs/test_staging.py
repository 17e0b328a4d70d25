"""Results appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gopt_geo.errors import OutputError
from gopt_geo.outputs.staging import Staging

REPOSITORY = Path(__file__).parents[2]
CHILD = """
import sys, time
from gopt_geo.outputs.staging import Staging
with Staging() as staging:
    path = staging.path(sys.argv[1])
    path.write_bytes(b"half")
    path.with_name(path.name + ".aux.xml").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def start(final: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(final)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str], signum: int) -> int:
    child.send_signal(signum)
    child.communicate(timeout=20)
    return child.returncode


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.brief
def test_publish_moves_the_result_and_its_sidecars(tmp_path: Path) -> None:
    with Staging() as staging:
        path = staging.path(tmp_path / "a.tif")
        assert path.name == "a.tif"
        assert path.parent.parent == tmp_path
        path.write_text("map")
        path.with_name("a.tif.aux.xml").write_text("legend")
        assert not (tmp_path / "a.tif").exists()
        staging.publish()
    assert names(tmp_path) == ["a.tif", "a.tif.aux.xml"]
    assert (tmp_path / "a.tif").read_text() == "map"


def test_the_tiff_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append(Path(to).name), replace(self, to))[1])
    with Staging() as staging:
        for name in ("map.tif", "map.gpkg", "confidence.tif"):
            staging.path(tmp_path / name).write_text(name)
        map_file = next(tmp_path.glob(".map.tif.*/map.tif"))
        map_file.with_name("map.tif.aux.xml").write_text("legend")
        staging.publish()
    assert order == ["map.gpkg", "confidence.tif", "map.tif.aux.xml", "map.tif"]


def test_leaving_without_publish_leaves_nothing(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.path(tmp_path / "a.tif").write_text("map")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with Staging() as staging:
            staging.path(tmp_path / "a.tif").write_text("map")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)])
def test_a_signal_leaves_nothing(tmp_path: Path, signum: int, code: int | None) -> None:
    returned = end(start(tmp_path / "a.tif"), signum)
    assert returned != 0
    assert code is None or returned == code
    assert names(tmp_path) == []


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    end(start(tmp_path / "a.tif"), signal.SIGKILL)
    assert not (tmp_path / "a.tif").exists()
    assert len(names(tmp_path)) == 1  # the hidden folder
    with Staging() as staging:
        staging.path(tmp_path / "b.tif")
        assert len(names(tmp_path)) == 2  # another result's leavings aren't touched
    with Staging() as staging:
        staging.path(tmp_path / "a.tif").write_text("map")
        staging.publish()
    assert names(tmp_path) == ["a.tif"]


def test_a_living_run_is_left_alone(tmp_path: Path) -> None:
    child = start(tmp_path / "a.tif")
    (theirs,) = tmp_path.iterdir()
    with Staging() as staging:
        staging.path(tmp_path / "a.tif").write_text("mine")
        assert (theirs / "a.tif").read_bytes() == b"half"
        staging.publish()
    assert (theirs / "a.tif").exists()
    end(child, signal.SIGTERM)
    assert names(tmp_path) == ["a.tif"]


def test_no_overwrite(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("old")
    with Staging() as staging, pytest.raises(OutputError, match=r"a\.tif: exists; use --overwrite"):
        staging.path(tmp_path / "a.tif")
    assert names(tmp_path) == ["a.tif"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.path(tmp_path / "a.tif").write_text("new")
        staging.path(tmp_path / "b.gpkg").write_text("new")
        (tmp_path / "a.tif").write_text("another's")
        with pytest.raises(OutputError, match="exists"):
            staging.publish()
    assert names(tmp_path) == ["a.tif"]
    assert (tmp_path / "a.tif").read_text() == "another's"


def test_a_lone_sidecar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif.aux.xml").write_text("of a file long gone")
    with Staging() as staging, pytest.raises(OutputError, match=r"its sidecar a\.tif\.aux\.xml exists"):
        staging.path(tmp_path / "a.tif")


def test_overwrite_keeps_the_old_file_until_publish_and_drops_its_sidecars(tmp_path: Path) -> None:
    for name in ("a.tif", "a.tif.aux.xml", "a.tif.ovr", "a.tif.msk"):
        (tmp_path / name).write_text("old")
    with Staging(overwrite=True) as staging:
        staging.path(tmp_path / "a.tif").write_text("new")
        assert (tmp_path / "a.tif").read_text() == (tmp_path / "a.tif.ovr").read_text() == "old"
    assert (tmp_path / "a.tif").read_text() == "old"
    with Staging(overwrite=True) as staging:
        path = staging.path(tmp_path / "a.tif")
        path.write_text("new")
        path.with_name("a.tif.aux.xml").write_text("new")
        staging.publish()
    assert names(tmp_path) == ["a.tif", "a.tif.aux.xml"]
    assert (tmp_path / "a.tif").read_text() == (tmp_path / "a.tif.aux.xml").read_text() == "new"


@pytest.mark.brief
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", "unknown ending '.png'"),
        ("a", "no ending"),
        ("missing/a.tif", "doesn't exist"),
        ("folder.tif", "is a folder"),
        ("input.tif", "is also an input"),
        ("link.tif", "is also an input"),
    ],
)
def test_bad_paths(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "input.tif").write_text("input")
    (tmp_path / "link.tif").symlink_to("input.tif")
    before = names(tmp_path)
    with Staging(True, inputs=[tmp_path / "input.tif"]) as staging, pytest.raises(OutputError, match=found):
        staging.path(tmp_path / name)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "path", ["s3://b/a.tif", "https://x.org/a.tif", "/vsimem/a.tif", "/vsis3/b/a.tif", "gs:/a.tif"]
)
def test_remote_paths(path: str) -> None:
    with Staging() as staging, pytest.raises(OutputError, match="not a local path"):
        staging.path(path)


def test_the_same_path_twice(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with Staging() as staging:
        staging.path(tmp_path / "a.tif")
        with pytest.raises(OutputError, match="twice"):
            staging.path(tmp_path / "sub" / ".." / "a.tif")


def test_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    folder = Path("/proc/self")  # not even root writes here
    if os.geteuid() != 0:
        folder = tmp_path / "readonly"
        folder.mkdir(mode=0o555)
    elif not folder.is_dir():
        pytest.skip("root may write everywhere, and there is no /proc")
    with Staging() as staging, pytest.raises(OutputError, match="can't be written"):
        staging.path(folder / "a.tif")


def test_other_endings_on_request(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.path(tmp_path / "a.png", endings=(".png",)).write_text("picture")
        staging.publish()
    assert names(tmp_path) == ["a.png"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def fill_disk() -> None:
        with Staging() as staging:
            staging.path(tmp_path / "a.tif")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"a\.tif: the disk is full"):
        fill_disk()
    assert names(tmp_path) == []


def test_errors_name_the_final_path(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, Staging() as staging:
        raise OutputError(staging.path(tmp_path / "a.tif"), "found", "remedy")
    assert str(caught.value) == f"{tmp_path / 'a.tif'}: found; remedy"


def test_publish_needs_the_results(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.path(tmp_path / "a.tif")
        with pytest.raises(RuntimeError, match="nothing was written"):
            staging.publish()


def test_a_signal_during_publish_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def interrupted(self: Path, to: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", interrupted)

    def publish_two() -> None:
        with Staging() as staging:
            for name in ("a.tif", "b.gpkg"):
                staging.path(tmp_path / name).write_text(name)
            staging.publish()

    with pytest.raises(KeyboardInterrupt):
        publish_two()
    assert names(tmp_path) == ["a.tif", "b.gpkg"]


def test_signal_handling_is_restored(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Staging():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
