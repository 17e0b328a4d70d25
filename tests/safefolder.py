"""Tiny Sentinel-2 `.SAFE` folders: both levels, baselines with and without offsets, JPEG 2000 without loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
SIZES = dict.fromkeys(("B02", "B03", "B04", "B08"), 10) | dict.fromkeys(("B01", "B09", "B10"), 60)
ORIGIN = (500000, 4600000)
EDGE = 720  # metres; a multiple of 10, 20 and 60


def numbers_of(band: str, size: int, shift: int = 0) -> np.ndarray:
    """Digital numbers of a band, different from band to band; the first pixel is nodata."""
    edge = EDGE // size
    values = np.random.default_rng(sum(band.encode())).integers(1, 8000, (edge, edge)) + shift
    values[0, 0] = 0
    return values.astype(np.uint16)


def write_image(path: Path, values: np.ndarray, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = Affine(size, 0, ORIGIN[0], 0, -size, ORIGIN[1])
    options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "crs": "EPSG:32631"}
    with rasterio.open(
        path,
        "w",
        width=values.shape[1],
        height=values.shape[0],
        count=1,
        dtype=values.dtype,
        transform=transform,
        **options,
    ) as file:
        file.write(values, 1)


def metadata(level: str, baseline: str, offsets: Mapping[int, int] | None, quantum: str = "10000") -> str:
    kind = "Level-1C" if level == "L1C" else "Level-2A"
    space = f'xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_{kind}.xsd"'
    tag, stem = ("RADIO_ADD_OFFSET", "Radiometric") if level == "L1C" else ("BOA_ADD_OFFSET", "BOA")
    quantify = "QUANTIFICATION_VALUE" if level == "L1C" else "BOA_QUANTIFICATION_VALUE"
    rows = "".join(f'<{tag} band_id="{i}">{v}</{tag}>' for i, v in (offsets or {}).items())
    listed = f"<{stem}_Offset_List>{rows}</{stem}_Offset_List>" if offsets else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><n1:{kind}_User_Product {space}><n1:General_Info><Product_Info>'
        "<PRODUCT_START_TIME>2024-06-01T10:56:21.024Z</PRODUCT_START_TIME>"
        f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
        "<Datatake><DATATAKE_SENSING_START>2024-06-01T10:56:21.024Z</DATATAKE_SENSING_START></Datatake>"
        f'</Product_Info><Product_Image_Characteristics><{quantify} unit="none">{quantum}</{quantify}>'
        f"{listed}</Product_Image_Characteristics></n1:General_Info></n1:{kind}_User_Product>"
    )


def write_safe(
    folder: Path,
    level: str = "L2A",
    baseline: str = "05.10",
    bands: Sequence[str] = ("B02", "B03", "B04", "B8A", "B01"),
    offsets: Mapping[int, int] | None = None,
    classes: np.ndarray | None = None,
) -> Path:
    """Write a product of some bands; baselines from 04.00 on get the offset -1000 unless told otherwise."""
    name = f"S2A_MSI{level}_20240601T105621_N{baseline.replace('.', '')}_R094_T31TCJ_20240601T170000.SAFE"
    safe = folder / name
    safe.mkdir(parents=True)
    if offsets is None and baseline >= "04":
        offsets = dict.fromkeys(range(len(BANDS)), -1000)
    (safe / f"MTD_MSI{level}.xml").write_text(metadata(level, baseline, offsets))
    images = safe / "GRANULE" / f"{level}_T31TCJ_A046705_20240601T105621" / "IMG_DATA"
    for band in bands:
        size = SIZES.get(band, 20)
        if level == "L1C":
            write_image(images / f"T31TCJ_20240601T105621_{band}.jp2", numbers_of(band, size), size)
            continue
        for coarser in {size, 20, 60}:
            if coarser >= size:
                place = images / f"R{coarser}m" / f"T31TCJ_20240601T105621_{band}_{coarser}m.jp2"
                write_image(place, numbers_of(band, coarser), coarser)
    if classes is not None:
        write_image(images / "R20m" / "T31TCJ_20240601T105621_SCL_20m.jp2", classes.astype(np.uint8), 20)
    return safe
