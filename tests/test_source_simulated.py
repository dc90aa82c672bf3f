"""The simulated source: same pixels in any window and process, and plausible scenes."""

from __future__ import annotations

import datetime as dt
import hashlib
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geofield.errors import GridError, MissingBandError, SourceError
from geofield.grid import Grid, Window
from geofield.source import Source, open_source
from geofield.source.simulated import BANDS, lattice_of
from geofield.testing.source import SourceContract

YEAR = dt.date(2025, 1, 1), dt.date(2025, 12, 31)
UTM = GeoBox((300, 400), Affine(10, 0, 499_000, 0, -10, 5_500_100), "EPSG:32631")


def simulated(**options: Any) -> Source:
    """A simulated source."""
    return open_source({"type": "simulated", **options})


def days_of(source: Source, start: dt.date = YEAR[0], end: dt.date = YEAR[1]) -> list[dt.date]:
    """Days with an acquisition."""
    return [one.time.date() for one in source.search(Grid(UTM), start, end)]


def ndvi(values: dict[str, np.ndarray]) -> np.ndarray:
    """(nir - red) / (nir + red)."""
    index: np.ndarray = (values["nir"] - values["red"]) / (values["nir"] + values["red"])
    return index


class TestSimulatedContract(SourceContract):
    """The simulated source keeps the contract."""

    def source(self) -> Source:
        """Seed 3."""
        return simulated(seed=3)

    def grid(self) -> Grid:
        """300 x 400 pixels."""
        return Grid(UTM)

    def days(self) -> tuple[dt.date, dt.date]:
        """A month."""
        return dt.date(2025, 4, 1), dt.date(2025, 4, 30)


ODD_GRIDS = {
    "whole multiples of 10 m": UTM,
    "pixels of 9.99479 x 9.99745 m": GeoBox(
        (300, 400), Affine(9.994793214, 0, 465181.0522318204, 0, -9.997448469, 5080254.63349641), "EPSG:32633"
    ),
    "centres on whole multiples": GeoBox((300, 400), Affine(10, 0, 499_005, 0, -10, 5_500_105), "EPSG:32631"),
    "a third of a pixel off": GeoBox((300, 400), Affine(30, 0, 499_010, 0, -30, 5_500_100), "EPSG:32631"),
    "degrees, west and south": GeoBox((300, 400), Affine(1e-4, 0, -58.4, 0, -1e-4, -34.6), "EPSG:4326"),
    "centres on tenths, which no float is": GeoBox((300, 400), Affine(0.1, 0, 7.05, 0, -0.1, 48.25), "EPSG:4326"),
    "across zero": GeoBox((300, 400), Affine(0.25, 0, -50, 0, -0.25, 37.5), "EPSG:4326"),
}


@pytest.mark.parametrize("name", ODD_GRIDS)
@given(data=st.data())
def test_any_window_of_any_lattice_has_the_same_bits(name: str, data: st.DataObject) -> None:
    geobox = ODD_GRIDS[name]
    rows, columns = geobox.shape
    source = simulated(seed=data.draw(st.integers(0, 2**40)))
    found = source.search(Grid(geobox), *YEAR)
    acquisition = found[data.draw(st.integers(0, len(found) - 1))]
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, rows)), data.draw(st.integers(x0 + 1, columns))
    bands = ["nir", "scl"]
    whole = source.read(acquisition, bands, geobox)
    part = source.read(acquisition, bands, geobox[y0:y1, x0:x1])
    for band in bands:
        np.testing.assert_array_equal(part[band], whole[band][y0:y1, x0:x1])


@pytest.mark.parametrize("name", ODD_GRIDS)
def test_windows_of_windows_stay_on_the_lattice(name: str) -> None:
    # each slicing rounds the transform once more
    geobox = ODD_GRIDS[name]
    rows, columns = lattice_of(geobox)
    inner = geobox
    for step in range(1, 12):
        inner = inner[7:, 13:]
        inner_rows, inner_columns = lattice_of(inner)
        assert (inner_rows[0], inner_columns[0]) == (rows[7 * step], columns[13 * step])


def test_lattice_counts_from_the_origin_of_the_crs() -> None:
    rows, columns = lattice_of(GeoBox((2, 3), Affine(10, 0, 500_000, 0, -10, 5_490_000), "EPSG:32631"))
    assert columns.tolist() == [50_000, 50_001, 50_002]
    assert rows.tolist() == [-548_999, -548_998]


def test_boxes_that_overlap_share_pixels() -> None:
    source = simulated()
    east = GeoBox((300, 400), Affine(10, 0, 501_000, 0, -10, 5_500_100), "EPSG:32631")
    acquisition = source.search(Grid(UTM), *YEAR)[20]
    ours, theirs = (source.read(acquisition, BANDS, geobox) for geobox in (UTM, east))
    for band in BANDS:
        np.testing.assert_array_equal(ours[band][:, 200:], theirs[band][:, :200])


PROGRAM = """
import datetime as dt, hashlib
from affine import Affine
from odc.geo.geobox import GeoBox
from geofield.grid import Grid
from geofield.source import open_source
geobox = GeoBox((300, 400), Affine(10, 0, 499_000, 0, -10, 5_500_100), "EPSG:32631")
source = open_source({"type": "simulated", "seed": 7})
digest = hashlib.blake2b()
for one in source.search(Grid(geobox), dt.date(2025, 6, 1), dt.date(2025, 6, 30)):
    for values in source.read(one, source.bands(), geobox).values():
        digest.update(values.tobytes())
print(digest.hexdigest())
"""


def test_another_process_makes_the_same_pixels() -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    source = simulated(seed=7)
    digest = hashlib.blake2b()
    for one in source.search(Grid(UTM), dt.date(2025, 6, 1), dt.date(2025, 6, 30)):
        for values in source.read(one, source.bands(), UTM).values():
            digest.update(values.tobytes())
    assert answer.stdout.strip() == digest.hexdigest()


def test_version_1_makes_these_pixels() -> None:
    # When these numbers change, ALGORITHM has to be raised, or stored cubes keep pixels that nobody can make again.
    source = simulated()
    (one,) = source.search(Grid(UTM), dt.date(2025, 5, 10), dt.date(2025, 5, 10))
    assert (one.id, one.version) == ("sim-0-20250510", "1;cloudiness=0.4")
    values = source.read(one, BANDS, UTM)
    assert {band: [round(float(v), 4) for v in value[100, 100:103]] for band, value in values.items()} == EXPECTED


EXPECTED = {
    "blue": [0.0394, 0.0397, 0.0378],
    "green": [0.0717, 0.072, 0.0714],
    "red": [0.0596, 0.0601, 0.0578],
    "nir": [0.4089, 0.4072, 0.4095],
    "swir16": [0.1884, 0.1902, 0.1894],
    "scl": [4.0, 4.0, 4.0],
}


def test_seeds_differ() -> None:
    reds = []
    for seed in (1, 2):
        source = simulated(seed=seed, cloudiness=0, revisit=1)
        one = source.search(Grid(UTM), dt.date(2025, 6, 1), dt.date(2025, 6, 3))[0]
        reds.append(source.read(one, ["red"], UTM)["red"])
    assert np.nanmean(reds[0] == reds[1]) < 0.1


def test_passes_come_every_revisit_days_and_some_never() -> None:
    days = days_of(simulated(seed=5), dt.date(2020, 1, 1), dt.date(2024, 12, 31))
    gaps = {(b - a).days for a, b in pairwise(days)}
    assert min(gaps) == 5
    assert all(gap % 5 == 0 for gap in gaps)
    planned = 1827 / 5
    assert 0.85 < len(days) / planned < 0.99


def test_revisit_and_phase_are_options() -> None:
    assert {day.toordinal() % 3 for day in days_of(simulated(revisit=3, phase=2))} == {2}
    assert len({simulated(seed=seed).phase for seed in range(40)}) == 5  # type: ignore[attr-defined]


def test_acquisition_looks_like_sentinel_2() -> None:
    for one in simulated(seed=11).search(Grid(UTM), *YEAR):
        assert one.id == f"sim-11-{one.time:%Y%m%d}"
        assert dt.time(10, 25) <= one.time.timetz().replace(tzinfo=None) < dt.time(10, 35)
        assert set(one.assets) == {"blue", "green", "red", "nir", "swir16", "scl"}


@pytest.mark.parametrize(("day", "low", "high"), [("2025-06-05", 0.6, 0.9), ("2025-01-15", 0.15, 0.55)])
def test_ndvi_follows_the_season(day: str, low: float, high: float) -> None:
    source = simulated(cloudiness=0, revisit=1)
    date = dt.date.fromisoformat(day)
    one = source.search(Grid(UTM), date, date)[0]
    index = ndvi(source.read(one, ["red", "nir"], UTM))
    assert np.nanmin(index) > 0.13
    assert np.nanmax(index) < 0.9
    assert low < np.nanmedian(index) < high


def test_parcels_differ_and_are_even_inside() -> None:
    source = simulated(cloudiness=0, revisit=1)
    one = source.search(Grid(UTM), dt.date(2025, 9, 1), dt.date(2025, 9, 1))[0]
    index = ndvi(source.read(one, ["red", "nir"], UTM))
    neighbours = np.abs(np.diff(index, axis=1))
    assert np.nanstd(index) > 0.15
    assert np.nanmedian(neighbours) < 0.02


@pytest.mark.parametrize("cloudiness", [0.0, 0.3, 0.7, 1.0])
def test_cloudiness_is_the_mean_share_of_cloud(cloudiness: float) -> None:
    source = simulated(cloudiness=cloudiness, revisit=1)
    wide = GeoBox((64, 64), Affine(10, 0, 0, 0, -10, 0), "EPSG:32631")
    shares = []
    for number, one in enumerate(source.search(Grid(wide), *YEAR)):
        far = GeoBox((64, 64), Affine(10, 0, 50_000 * number, 0, -10, 5_000_000), "EPSG:32631")
        classes = source.read(one, ["scl"], far)["scl"]
        if (classes != 0).all():
            shares.append(np.isin(classes, [8, 9, 10]).mean())
    assert len(shares) > 250
    assert np.mean(shares) == pytest.approx(cloudiness, abs=0.06)
    if 0 < cloudiness < 1:
        assert min(shares) == 0
        assert max(shares) == 1


def test_partly_cloudy_scene_has_every_class_and_bright_clouds() -> None:
    source = simulated()
    wide = GeoBox((1500, 1500), Affine(10, 0, 500_000, 0, -10, 5_500_000), "EPSG:32631")
    found = source.search(Grid(wide), *YEAR)
    (one,) = [each for each in found if 40 < each.properties["eo:cloud_cover"] < 42][:1]
    values = source.read(one, ["blue", "scl"], wide)
    classes, blue = values["scl"], values["blue"]
    assert {3, 4, 5, 8, 9, 10} <= set(np.unique(classes)) <= {0, 3, 4, 5, 8, 9, 10}
    assert np.isin(classes, [8, 9, 10]).mean() == pytest.approx(0.41, abs=0.1)
    brightness = {name: np.nanmedian(blue[np.isin(classes, codes)])
                  for name, codes in {"cloud": [9], "land": [4, 5], "shadow": [3]}.items()}  # fmt: skip
    assert brightness["cloud"] > 0.4
    assert brightness["shadow"] < 0.7 * brightness["land"] < 0.1


def test_outside_the_swath_bands_are_missing_and_scl_is_0() -> None:
    source = simulated(revisit=1)
    wide = GeoBox((40, 24_000), Affine(10, 0, 0, 0, -10, 5_500_000), "EPSG:32631")
    missing = []
    for one in source.search(Grid(wide), dt.date(2025, 6, 1), dt.date(2025, 6, 30)):
        values = source.read(one, ["red", "scl"], wide[:2])
        np.testing.assert_array_equal(np.isnan(values["red"]), values["scl"] == 0)
        missing.append(np.isnan(values["red"]).mean())
    assert min(missing) == 0
    assert max(missing) == pytest.approx(1 / 6, abs=0.001)


def test_reflectances_are_whole_steps() -> None:
    source = simulated(cloudiness=0)
    red = source.read(source.search(Grid(UTM), *YEAR)[3], ["red"], UTM)["red"]
    np.testing.assert_array_equal(red, np.rint(red * 10_000) / 10_000)


def test_withheld_scene_is_not_there_yet() -> None:
    days = days_of(simulated())
    assert days_of(simulated(withhold=[days[2].isoformat()])) == days[:2] + days[3:]


def test_reprocessed_scene_has_another_version_and_slightly_other_values() -> None:
    before = simulated()
    scene, other = before.search(Grid(UTM), *YEAR)[10:12]
    after = simulated(reprocessed={scene.time.date().isoformat(): 1})
    again, same = after.search(Grid(UTM), *YEAR)[10:12]
    assert same == other
    assert again.id == scene.id
    assert again.version == "1.r1;cloudiness=0.4" != scene.version
    change = after.read(again, ["nir"], UTM)["nir"] - before.read(scene, ["nir"], UTM)["nir"]
    np.testing.assert_allclose(change[np.isfinite(change)], 0.002, atol=1e-12)
    assert np.isfinite(change).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sed": 3}, r"sed is no key of it \(value 3\).*Its keys are type, seed, revisit"),
        ({"revisit": 0}, r"revisit = 0: .*greater than or equal to 1"),
        ({"seed": "many"}, r"seed = 'many': .*valid integer"),
        ({"cloudiness": float("nan")}, r"cloudiness = nan"),
        ({"withhold": ["2025-13-01"]}, r"withhold\.0 = '2025-13-01'"),
    ],
)
def test_wrong_settings_name_the_key_the_value_and_the_keys(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        simulated(**options)


@pytest.mark.parametrize("spec", [{"type": "landsat"}, {}, {"type": ["files"]}])
def test_unknown_type_names_the_types(spec: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"is no type of source.*files.*simulated"):
        open_source(spec)


def test_unknown_band_foreign_acquisition_and_flipped_grid_are_refused() -> None:
    source = simulated()
    one = source.search(Grid(UTM), *YEAR)[0]
    with pytest.raises(MissingBandError, match="no band 'B04'; it offers blue, green"):
        source.read(one, ["B04"], UTM)
    with pytest.raises(SourceError, match="sim-0-20250105 is none of the simulated source 8"):
        simulated(seed=8).read(one, ["red"], UTM)
    with pytest.raises(GridError, match="north-up"):
        source.read(one, ["red"], GeoBox((4, 4), Affine(10, 0, 0, 0, 10, 0), "EPSG:32631"))


def test_tile_windows_of_a_grid_agree() -> None:
    grid = Grid(UTM, tile=256)
    source = simulated()
    one = source.search(grid, *YEAR)[5]
    whole = source.read(one, ["nir"], grid.geobox)["nir"]
    joined = np.full(grid.shape, -1.0)
    for tile in grid.tiles():
        window: Window = grid.tile_window(*tile)
        joined[window.slices] = source.read(one, ["nir"], grid.window_geobox(window))["nir"]
    np.testing.assert_array_equal(joined, whole)
