"""What ``import gopt_geo`` offers, and what it must not cost."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import gopt_geo


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.mark.brief
def test_importing_loads_nothing_heavy() -> None:
    loaded = python("import sys; before = set(sys.modules); import gopt_geo; print(*set(sys.modules) - before)")
    assert not {"torch", "numpy", "rasterio", "importlib.metadata"} & set(loaded.split())


def test_version_is_the_installed_one() -> None:
    assert gopt_geo.__version__ == version("gopt-geo")


def test_verbs_dont_collide_with_packages() -> None:
    """A verb named like a subpackage would be replaced by it as soon as that is imported."""
    import importlib
    import pkgutil

    packages = {module.name for module in pkgutil.iter_modules(gopt_geo.__path__)}
    verbs = {name for name in gopt_geo.__all__ if not name.startswith("_")}
    assert not verbs & packages
    for name in packages - {"training"}:
        importlib.import_module(f"gopt_geo.{name}")
    assert all(callable(getattr(gopt_geo, verb)) for verb in verbs)
    with pytest.raises(AttributeError, match="no attribute 'predct'"):
        _ = gopt_geo.predct
