"""Which asset of an item is which band: by asset keys, by the names of Sentinel-2's bands, by common names. Pure."""

from __future__ import annotations

import re

from geofield.source.stacitem import BandFields, Json, assets_of, band_fields, properties_of

SENTINEL2 = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge071": "B05",
    "rededge075": "B06",
    "rededge078": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}
"""Common name (STAC, extension eo 2) -> Sentinel-2's own."""
LANDSAT = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "lwir11", "qa_pixel")
QUALITY = ("scl", "qa_pixel", "qa_radsat", "cloud_qa", "fmask", "quality")
"""Names of bands of classes and packed bits."""
_SENTINEL2_BANDS = (*(name for name in SENTINEL2 if name != "cirrus"), "scl")
_COMMON_NAMES = (*SENTINEL2, "lwir11", *QUALITY[:2])
# at its own resolution, of those that the catalogue of the Copernicus Data Space holds
_RESOLUTION = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B08": 10, "B09": 60, "B10": 60, "SCL": 20}
_OTHER_KEYS: dict[str, tuple[str, ...]] = {
    "rededge071": ("rededge1",),
    "rededge075": ("rededge2",),
    "rededge078": ("rededge3",),
}
_OWN_NAME = re.compile(r"(B(?:0[1-9]|1[0-2]|8A))(?:_\d+m)?", re.IGNORECASE)
# what a catalogue calls these in common names differs: B8A is "rededge" on the Planetary Computer
_NEVER_BY_COMMON_NAME = ("rededge071", "rededge075", "rededge078")
_NOT_DATA = {"thumbnail", "overview", "visual", "metadata", "tiles"}


def offered_bands(collections: tuple[str, ...]) -> tuple[str, ...]:
    """The bands that a source offers when its box does not name them, by the collections' names."""
    if collections and all(re.search(r"sentinel-?2|^s2", name, re.IGNORECASE) for name in collections):
        return _SENTINEL2_BANDS
    if collections and all(name.lower().startswith(("landsat", "lc08", "lc09")) for name in collections):
        return LANDSAT
    return _COMMON_NAMES


def asset_key(item: Json, name: str) -> str | None:
    """The key of the asset that holds a band; None when the item has none.

    First an asset of that key, then Sentinel-2's own name for it (`B04`, `B04_10m`), then the one asset with a single
    band of that common name: GeoTIFF before JPEG 2000, then the finest.
    """
    assets = assets_of(item)
    own = SENTINEL2.get(name, name.upper())
    usual = (name, *_OTHER_KEYS.get(name, ()), own, f"{own}_{_RESOLUTION.get(own, 20)}m")
    if present := [key for key in usual if key in assets]:
        return present[0]
    if name in _NEVER_BY_COMMON_NAME:
        return None
    found = [key for key, asset in assets.items() if _is_band(item, key, asset, name)]
    found.sort(key=lambda one: (is_jpeg2000(assets[one]), _gsd(item, assets[one]), one))
    return next(iter(found), None)


def sentinel2_band(key: str, fields: BandFields) -> str | None:
    """B01 to B12 or B8A, the bands of reflectance; None for anything else (SCL, AOT, WVP, the true-colour image)."""
    for text in (key, fields.name or ""):
        if found := _OWN_NAME.fullmatch(text):
            return str(found[1]).upper()
    plain = key.removesuffix("-jp2")
    for name, own in SENTINEL2.items():
        if plain == name or plain in _OTHER_KEYS.get(name, ()):
            return own
    if fields.count == 1 and fields.common_name in SENTINEL2:
        return SENTINEL2[fields.common_name]
    return None


def is_jpeg2000(asset: Json) -> bool:
    """By its type, or else by its address."""
    kind = asset.get("type")
    return "jp2" in kind if isinstance(kind, str) else str(asset["href"]).lower().endswith(".jp2")


def _is_band(item: Json, key: str, asset: Json, name: str) -> bool:
    roles = asset.get("roles")
    if isinstance(roles, list) and _NOT_DATA.intersection(map(str, roles)):
        return False
    fields = band_fields(item, asset)
    return fields.count == 1 and fields.common_name == name


def _gsd(item: Json, asset: Json) -> float:
    gsd = asset.get("gsd", properties_of(item).get("gsd"))
    return float(gsd) if isinstance(gsd, int | float) else 1e9
