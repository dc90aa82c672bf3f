"""From bands to stored integers, the day-on-day state, and digests."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofield.boxes import Box, Variable, resolve_grid
from geofield.encoding import AGE, Encoding, value_encoding
from geofield.errors import RecipeError
from geofield.recipe.digest import recipe_digest, row_digest, tile_digest
from geofield.recipe.state import State, advance, grown, never_seen, sigma
from geofield.recipe.variables import check_recipe, encoding_of, merge, needed_bands, observe

STEP = Encoding("int16", 1e-4)


def make_box(variables: dict[str, object]) -> Box:
    return Box.model_validate(
        {
            "id": "b",
            "bbox": (465000, 5079000, 466000, 5080000),
            "crs": "EPSG:32633",
            "start": dt.date(2025, 4, 1),
            "source": {"type": "simulated"},
            "variables": variables,
        }
    )


def test_the_worked_pixel_of_five_days() -> None:
    """q = 1e-4, r = 4e-4: seen, cloud, seen, cloud, seen."""
    state = never_seen(STEP, (1, 1), 100)
    expected = [  # value or None, estimate, s0, age, sigma
        (0.50, 0.5000, 0.0200, 0, 0.0200),
        (None, 0.5000, 0.0200, 1, 0.0224),
        (0.60, 0.5600, 0.0155, 0, 0.0155),
        (None, 0.5600, 0.0155, 1, 0.0184),
        (0.55, 0.5548, 0.0145, 0, 0.0145),
    ]
    for number, (value, estimate, s0, age, error) in enumerate(expected):
        observed = STEP.encode(np.array([[np.nan if value is None else value]]))
        state = advance(state, observed, STEP, 1e-4, 4e-4, 101 + number)
        assert STEP.decode(state.filled)[0, 0] == pytest.approx(estimate, abs=1e-9)
        assert STEP.decode(state.sigma0)[0, 0] == pytest.approx(s0, abs=1e-9)
        assert state.age[0, 0] == age
        found = sigma(STEP.decode(state.sigma0), AGE.decode(state.age), 1e-4)[0, 0]
        assert found == pytest.approx(error, abs=5e-5)


def reference_advance(m: float, s0: float, age: float, v: float, gap: int, q: float, r: float) -> tuple[float, ...]:
    if np.isnan(v):
        return m, s0, age + gap
    if np.isnan(age):
        return v, np.sqrt(r), 0.0
    p = s0**2 + q * (age + gap)
    k = p / (p + r)
    return m + k * (v - m), np.sqrt((1 - k) * p), 0.0


@given(
    st.lists(st.one_of(st.none(), st.integers(-10000, 10000)), min_size=1, max_size=12),
    st.lists(st.integers(1, 9), min_size=12, max_size=12),
    st.sampled_from([0.0, 1e-4, 1e-2]),
)
def test_the_state_is_the_filter_on_what_is_stored(values: list[int | None], gaps: list[int], q: float) -> None:
    state, day, r = never_seen(STEP, (1, 1), 0), 0, 4e-4
    for value, gap in zip(values, gaps, strict=False):
        day += gap
        observed = np.array([[STEP.fill if value is None else value]], dtype="int16")
        before = (STEP.decode(state.filled)[0, 0], STEP.decode(state.sigma0)[0, 0], AGE.decode(state.age)[0, 0])
        m, s0, age = reference_advance(*before, np.nan if value is None else value * 1e-4, gap, q, r)
        state = advance(state, observed, STEP, q, r, day)
        assert abs(STEP.decode(state.filled)[0, 0] - m) < 0.51e-4 or np.isnan(m)
        assert abs(STEP.decode(state.sigma0)[0, 0] - s0) < 0.51e-4 or np.isnan(s0)
        assert np.array_equal(AGE.decode(state.age)[0, 0], age, equal_nan=True)


def test_a_pixel_unseen_for_a_lifetime_does_not_wrap() -> None:
    old = State(*(np.array([[value]], dtype="int16") for value in (5000, 200, 32760)), day=0)
    after = advance(old, np.array([[STEP.fill]], dtype="int16"), STEP, 1e-4, 4e-4, 100)
    assert after.age[0, 0] == 32767


def test_encoding_keeps_what_fits_and_only_that() -> None:
    values = np.array([0.12344, 0.12346, -1.0, np.nan, np.inf, 4.0, -3.2768])
    assert STEP.encode(values).tolist() == [1234, 1235, -10000, STEP.fill, STEP.fill, STEP.fill, STEP.fill]
    decoded = STEP.decode(STEP.encode(values))
    assert decoded[:3] == pytest.approx([0.1234, 0.1235, -1.0])
    assert np.isnan(decoded[3:]).all()
    assert value_encoding((-1, 1), 1e-4).dtype == "int16"
    assert value_encoding((-1, 1), 1e-6).dtype == "int32"
    assert value_encoding(None, 1e-4).dtype == "int32"


def test_an_index_is_masked_by_class_and_range() -> None:
    variable = Variable.model_validate({"index": "NDVI", "mask": {"scl": [3, 8]}, "valid_range": [-1, 1]})
    bands = {
        "nir": np.array([[0.5, 0.5, 0.5, np.nan, 0.0, 0.6]]),
        "red": np.array([[0.1, 0.1, 0.1, 0.1, 0.0, -0.1]]),
        "scl": np.array([[4.0, 3.0, np.nan, 4.0, 4.0, 4.0]]),
    }
    numbers = observe(variable, bands)
    fill = encoding_of(variable).fill
    # (0.5 - 0.1) / 0.6; shadow; no class known; no value; 0 / 0; 0.7 / 0.5 = 1.4 is out of range
    assert numbers.tolist() == [[6667, fill, fill, fill, fill, fill]]


def test_a_wrong_offset_would_be_seen() -> None:
    """DN 1900 and 6400 with the -1000 of baseline 04.00: 0.714; without it 0.542."""
    variable = Variable.model_validate({"index": "NDVI", "valid_range": [-1, 1]})
    right = observe(variable, {"nir": np.array([[0.54]]), "red": np.array([[0.09]])})
    wrong = observe(variable, {"nir": np.array([[0.64]]), "red": np.array([[0.19]])})
    assert (right[0, 0], wrong[0, 0]) == (7143, 5422)


def test_the_first_valid_layer_wins_pixel_by_pixel() -> None:
    f = STEP.fill
    layers = [np.array([[1, f, f]], "int16"), np.array([[2, 2, f]], "int16"), np.array([[3, 3, 3]], "int16")]
    assert merge(STEP, layers).tolist() == [[1, 2, 3]]
    assert layers[0].tolist() == [[1, f, f]]


def test_what_does_not_exist_is_named() -> None:
    offered = ("blue", "green", "red", "nir", "scl")
    check_recipe(make_box({"evi": {"index": "EVI"}}), offered)
    with pytest.raises(RecipeError, match="no spectral index 'NVDI'"):
        check_recipe(make_box({"x": {"index": "NVDI"}}), offered)
    with pytest.raises(RecipeError, match=r"needs the band 'temperature'; its source offers blue"):
        check_recipe(make_box({"x": {"band": "temperature"}}), offered)
    with pytest.raises(RecipeError, match="NDMI needs swir16"):
        check_recipe(make_box({"x": {"index": "NDMI"}}), offered)
    with pytest.raises(RecipeError, match="needs the band 'cloud'"):
        check_recipe(make_box({"x": {"index": "NDVI", "mask": {"cloud": [1]}}}), offered)


def test_bands_are_asked_for_once() -> None:
    box = make_box({"ndvi": {"index": "NDVI", "mask": {"scl": [0]}}, "gndvi": {"index": "GNDVI", "mask": {"scl": [0]}}})
    assert sorted(needed_bands(box.variables, ("blue", "green", "red", "nir", "scl"))) == ["green", "nir", "red", "scl"]


def test_digests_change_with_what_matters_and_only_with_that() -> None:
    box = make_box({"ndvi": {"index": "NDVI", "state": "kalman"}})
    grid = resolve_grid(box)
    recipe = recipe_digest(box, grid)
    items = [("a", "1"), ("b", "1")]
    one = tile_digest(recipe, True, items, 7)
    assert one == tile_digest(recipe, True, reversed(items), 7)
    assert len({one, tile_digest(recipe, True, items, 8), tile_digest(recipe, True, items, None),
                tile_digest(recipe, True, [], 7),
                tile_digest(recipe, True, [("a", "2"), ("b", "1")], 7), tile_digest(b"x", True, items, 7),
                tile_digest(recipe, False, [], 7)}) == 7  # fmt: skip
    larger = resolve_grid(box.model_copy(update={"grid": box.grid.model_copy(update={"tile": 256})}))
    assert recipe_digest(box, larger) == recipe
    noisier = make_box({"ndvi": {"index": "NDVI", "state": "kalman", "q": 2e-4}})
    spelled_out = make_box({"ndvi": {"index": "NDVI", "state": "kalman", "q": 1e-4, "r": 4e-4}})
    assert recipe_digest(noisier, grid) != recipe
    assert recipe_digest(spelled_out, grid) == recipe
    assert row_digest([5, 5, 3], {"ndvi": ["mean"]}) == row_digest([3, 5], {"ndvi": ["mean"]})
    assert row_digest([3, 5], {"ndvi": ["mean", "sum"]}) != row_digest([3, 5], {"ndvi": ["mean"]})


# 22080 = 0b101011001000000 is what Landsat 8 says of a clear land pixel: bits 6, 7, 9, 12 and 14
@pytest.mark.parametrize(
    ("mask", "valid"),
    [
        # bit 1: 2 and 3; bit 3: 8; a missing number is never good
        ({"bits": [1, 3]}, [True, True, False, False, False, True, False]),
        ({"bits": [0]}, [True, False, True, False, True, True, False]),
        # bits 8 and 9 as one number: 22080 >> 8 & 3 = 2
        ({"bits": {"8-9": [2, 3]}}, [True, True, True, True, True, False, False]),
        ({"bits": {"8-9": [1, 3], "1": [1]}}, [True, True, False, False, True, True, False]),
        ([2, 22080], [True, True, False, True, True, False, False]),
        ({"bits": [14]}, [True, True, True, True, True, False, False]),
    ],
)
def test_a_packed_quality_band_is_masked_by_bits(mask: object, valid: list[bool]) -> None:
    variable = Variable.model_validate({"band": "lst", "mask": {"qa": mask}})
    quality = np.array([[0.0, 1.0, 2.0, 3.0, 8.0, 22080.0, np.nan]])
    numbers = observe(variable, {"lst": np.full(quality.shape, 0.5), "qa": quality})
    np.testing.assert_array_equal(numbers[0] != encoding_of(variable).fill, valid)


@pytest.mark.parametrize("bits", [[], [32], [-1], {"9-8": [1]}, {"cloud": [1]}])
def test_bits_that_do_not_exist_are_refused(bits: object) -> None:
    with pytest.raises(ValueError, match=r"bits are counted from 0 to 31|at least one bit"):
        Variable.model_validate({"band": "lst", "mask": {"qa": {"bits": bits}}})


def test_masks_by_classes_keep_their_digest() -> None:
    """Written down before masks by bits were known: a cube that stands must not be built anew for them."""
    box = make_box({"ndvi": {"index": "NDVI", "mask": {"scl": [3, 8]}}})
    assert recipe_digest(box, resolve_grid(box)).hex() == "8b4d3a5d66290ad5c8712746b4fa096e"
    bits = make_box({"ndvi": {"index": "NDVI", "mask": {"scl": {"bits": [3, 8]}}}})
    assert recipe_digest(bits, resolve_grid(bits)) != recipe_digest(box, resolve_grid(box))


def test_errors_and_ages_on_days_between_are_those_of_the_formula_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    sigma0, age = rng.uniform(0, 0.3, (4, 1000)), rng.integers(0, 400, (4, 1000)).astype(np.float64)
    sigma0[rng.random(sigma0.shape) < 0.1] = np.nan
    age[rng.random(age.shape) < 0.1] = np.nan
    place, gaps = np.array([0, 0, 2, 3]), np.array([0, 1, 7, 30])
    error, older = grown(sigma0, age, place, gaps, 1.3e-4)
    np.testing.assert_array_equal(older, age[place] + gaps[:, None])
    np.testing.assert_array_equal(error, sigma(sigma0[place], age[place] + gaps[:, None], 1.3e-4))
