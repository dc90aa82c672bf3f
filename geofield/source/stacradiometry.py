"""What the numbers of a band mean: scale, offset and nodata of one item. Pure functions.

Catalogues state the offset that Sentinel-2 has from processing baseline 04.00 on in four ways, see docs/sources.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from geofield.errors import SourceError
from geofield.source.stacbands import is_jpeg2000, sentinel2_band
from geofield.source.stacitem import BandFields, Json, band_fields, name_of, properties_of

Baseline = tuple[int, int]

QUANTIFICATION = 1e-4
"""Reflectance of one digital number, of Sentinel-2 products."""
BASELINE_WITH_OFFSET: Baseline = (4, 0)
OFFSET_DN = -1000
"""BOA_ADD_OFFSET (level 2A) and RADIO_ADD_OFFSET (level 1C), the same in all bands, from that baseline on. Sentinel-2
Products Specification Document 14.9, and the processing baselines' page of the Copernicus Data Space."""

_PRODUCT = re.compile(r"S2[A-D]_MSIL[12][AC]_\d{8}T\d{6}_N(\d\d)(\d\d)_")
_BASELINE = re.compile(r"N?(\d{1,2})(?:\.(\d{1,2})|(\d\d))")
_PRODUCT_KEYS = ("s2:product_uri", "sentinel:product_id")
_APPLIED_KEYS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINE_KEYS = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")


@dataclass(frozen=True)
class Radiometry:
    """value = number x scale + offset, where the number is not nodata. None: as the file is tagged."""

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None


def radiometry_of(item: Json, key: str, asset: Json, index: int, quality: bool, given: Radiometry) -> Radiometry:
    """What holds for one band of one item.

    Parameters
    ----------
    index
        Band in the file, counted from 1.
    quality
        Numbers are classes or bits: they are taken as they are.
    given
        What the box says, which wins.

    Raises
    ------
    SourceError
        A Sentinel-2 product that states neither offset nor baseline: any guess would be plausible and may be wrong.
    """
    fields = band_fields(item, asset, index)
    is_product = is_sentinel2(item)
    is_reflectance = is_product and not quality and sentinel2_band(key, fields) is not None
    nodata = given.nodata if given.nodata is not None else fields.nodata
    if nodata is None and is_product and (is_reflectance or key.lower().startswith("scl")):
        nodata = 0.0  # "NO_DATA" of both; files of the Planetary Computer are not tagged
    if quality:
        return Radiometry(1.0, 0.0, nodata)
    scale, offset = fields.scale, fields.offset
    if is_reflectance:
        scale = QUANTIFICATION if scale is None else scale
    elif scale is not None or offset is not None:  # the raster extension's defaults
        scale, offset = (1.0 if scale is None else scale), (0.0 if offset is None else offset)
    scale = scale if given.scale is None else given.scale
    if given.offset is not None:
        offset = given.offset
    elif is_reflectance and scale is not None:
        applied = None if is_jpeg2000(asset) else offset_applied(item)
        offset = sentinel2_offset(item, fields, applied, scale)
    return Radiometry(scale, offset, nodata)


def sentinel2_offset(item: Json, fields: BandFields, applied: bool | None, scale: float) -> float:
    """The offset of a band of reflectance, in reflectance.

    Parameters
    ----------
    applied
        The item says that the pixels hold it already; None: it does not say.
    """
    if applied:
        return 0.0
    if fields.offset is not None:
        return fields.offset
    baseline = baseline_of(item)
    if baseline is None:
        raise SourceError(
            f"{name_of(item)} is a Sentinel-2 product that states neither the offset of its bands nor its processing "
            "baseline, so its reflectance cannot be told. Give `offset` under `bands`, or leave it out by a `query`."
        )
    return OFFSET_DN * scale if baseline >= BASELINE_WITH_OFFSET else 0.0


def offset_applied(item: Json) -> bool | None:
    """Earth Search's word on its own GeoTIFFs; it does not speak of the original JPEG 2000 files, which keep it."""
    properties = properties_of(item)
    return next((bool(properties[key]) for key in _APPLIED_KEYS if isinstance(properties.get(key), bool)), None)


def baseline_of(item: Json) -> Baseline | None:
    """The processing baseline of a Sentinel-2 product; None when it is not said."""
    properties = properties_of(item)
    for key in _BASELINE_KEYS:
        if found := _BASELINE.fullmatch(str(properties.get(key, ""))):
            return int(found[1]), int((found[2] or found[3]).ljust(2, "0"))  # as a number, 05.10 is 5.1
    for text in (*(properties.get(key) for key in _PRODUCT_KEYS), item.get("id")):
        if found := _PRODUCT.match(str(text)):
            return int(found[1]), int(found[2])
    return None


def is_sentinel2(item: Json) -> bool:
    """Whether an item is a product of ESA's processor; others made from Sentinel-2 (HLS) have rules of their own."""
    properties = properties_of(item)
    if any(str(key).startswith(("s2:", "sentinel:")) for key in properties):
        return True
    names = (properties.get("constellation"), properties.get("platform"))
    is_mission = any(str(name).lower().replace(" ", "-").startswith("sentinel-2") for name in names)
    return is_mission and re.match(r"S2[A-D]_", str(item.get("id"))) is not None
