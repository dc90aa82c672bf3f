"""Pictures: what is drawn is what the rows and the cube hold; nothing in an id is interpreted."""

from __future__ import annotations

import builtins
import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from geofield import Store, plots
from geofield.errors import ConfigurationError, CrsError, InputError, NotFoundError
from tests.support.smallstore import START, box, feature, make_store, write_fields

HOSTILE = "$x^2$ </script><img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def _closed() -> Any:
    from matplotlib import pyplot

    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def rows_of(field: str = "A", box_id: str = "b", planted: dt.date = START) -> pd.DataFrame:
    """Ten days: seen on the 1st and 7th, cloud on the 4th and from the 9th on."""
    status = ["no_acquisition"] * 10
    observed = [np.nan] * 10
    for number, value in ((0, 0.5), (6, 0.7)):
        status[number], observed[number] = "observed", value
    status[3] = status[8] = "all_masked"
    days = [START + dt.timedelta(days=number) for number in range(10)]
    return pd.DataFrame(
        {
            "box": box_id, "field_id": field, "field_version": "v", "date": days,
            "days_since_planting": [(day - planted).days for day in days], "status": status, "covered": 1.0,
            "ndvi_valid": [0.0 if np.isnan(value) else 1.0 for value in observed], "ndvi_mean": observed,
            "ndvi_filled_mean": np.linspace(0.5, 0.7, 10), "ndvi_sigma_mean": 0.02, "digest": "d",
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six days of two boxes, three fields, one of a hostile name."""
    from orchestrate.inbox import submit
    from orchestrate.run import run

    folder = tmp_path_factory.mktemp("plots")
    sky = {"type": "simulated", "seed": 5, "revisit": 2, "phase": 0, "cloudiness": 0.1}
    made = make_store(str(folder / "store"), box(source=sky), box("c"))
    file = write_fields(folder / "f.geojson", feature("A", 0, 0), feature(HOSTILE, 150, 0), feature("C", 0, 200))
    submit(made, [file], "fields", {})
    assert not run(made, START + dt.timedelta(days=5))["errors"]
    return made


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_a_series_has_its_observations_its_estimate_with_band_its_gaps_and_planting() -> None:
    axes = plots.series(rows_of())
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["observed mean"].get_ydata().tolist() == [0.5, 0.7]
    assert drawn["observed mean"].get_xdata().astype(str).tolist() == ["2025-04-01", "2025-04-07"]
    np.testing.assert_array_equal(drawn["daily estimate"].get_ydata(), np.linspace(0.5, 0.7, 10))
    assert "planted 2025-04-01" in drawn
    (band,) = axes.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert (low, high) == pytest.approx((0.46, 0.74))
    # cloud on the 4th until seen on the 7th; cloud on the 9th until the end
    first = matplotlib.dates.date2num(START)
    assert [(patch.get_x() - first, patch.get_width()) for patch in axes.patches] == [(3, 3), (8, 2)]


def test_a_series_planted_before_the_box_is_not_squeezed() -> None:
    axes = plots.series(rows_of(planted=START - dt.timedelta(days=200)))
    assert "planted 2024-09-13, before the box's start" in [text.get_text() for text in axes.get_legend().texts]
    assert matplotlib.dates.num2date(axes.get_xlim()[0]).date() >= START - dt.timedelta(days=1)


def test_ids_are_no_mathematics() -> None:
    axes = plots.series(rows_of(field="$\\bad{"))
    axes.figure.canvas.draw()  # would raise
    assert axes.get_title(loc="left") == "Field $\\bad{ in box b"


def test_multiples_share_their_scales() -> None:
    rows = pd.concat([rows_of(name) for name in "ABCDE"])
    figure = plots.multiples(rows, columns=3)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == list("ABCDE")
    assert len({axes.get_ylim() for axes in shown}) == 1


def test_a_heat_map_has_a_row_for_each_field_and_a_column_for_each_day() -> None:
    late = rows_of("B", planted=START + dt.timedelta(days=5)).iloc[5:].assign(ndvi_filled_mean=0.9)
    axes = plots.heatmap(pd.concat([rows_of(), late]), order="value")
    values = axes.collections[0].get_array().reshape(2, 10).filled(np.nan)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["B", "A"]
    assert np.isnan(values[0, :5]).all()
    assert (values[0, 5:] == 0.9).all()
    np.testing.assert_allclose(values[1], np.linspace(0.5, 0.7, 10))


def test_a_day_of_a_box_has_its_pixels_and_the_fields_inside(store: Store) -> None:
    cube = store.cube("b").open()
    axes = plots.day(cube, store.fields(), variable="ndvi_filled", date="2025-04-03", labels=True)
    image = axes.images[0]
    np.testing.assert_array_equal(image.get_array().filled(np.nan), cube["ndvi_filled"].isel(time=2).to_numpy())
    assert image.get_extent() == [500.0, 500.4, 5490.0, 5490.4]
    assert sum(len(item.get_paths()) for item in axes.collections) == 3
    assert HOSTILE in [text.get_text() for text in axes.texts]
    assert "2025-04-03" in axes.get_title(loc="left")


def test_an_observation_is_shown_of_the_last_day_that_has_one(store: Store) -> None:
    cube = store.cube("b").open()
    seen = cube["time"].to_numpy()[cube["ndvi"].notnull().any(["y", "x"]).to_numpy()]
    axes = plots.day(cube, variable="ndvi")
    assert str(seen[-1])[:10] in axes.get_title(loc="left")


def test_an_interactive_series_holds_the_same_numbers() -> None:
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    figure = plots.interactive_series(rows_of(field=HOSTILE))
    (source,) = {glyph.data_source for glyph in figure.renderers if "estimate" in glyph.data_source.data}
    np.testing.assert_array_equal(source.data["estimate"], np.linspace(0.5, 0.7, 10))
    assert source.data["status"][3] == "all_masked"
    assert HOSTILE not in file_html(figure, INLINE)  # escaped


def test_an_interactive_series_has_the_legend_of_the_other() -> None:
    rows = rows_of()
    _, labels = plots.series(rows).get_legend_handles_labels()
    figure = plots.interactive_series(rows)
    assert sorted(item.label.value for item in figure.legend[0].items) == sorted(labels)
    assert "cloud: nothing valid" in labels


def test_latest_values_are_those_of_the_last_day_that_has_one() -> None:
    rows = pd.concat([rows_of("B").drop(columns=["ndvi_filled_mean"]), rows_of("A").drop(columns=["ndvi_filled_mean"])])
    found = plots.latest_values(rows)
    assert found.to_dict() == {"A": 0.7, "B": 0.7}
    assert plots.latest_values(rows_of()).to_dict() == {"A": 0.7}


# --- maps ------------------------------------------------------------------------------------------------------------


def test_a_folium_map_shows_ids_as_text(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("folium", reason="folium is of the extra `notebook`")
    values = plots.latest_values(store.rows(box="b"))
    made = plots.field_map(store.fields(), values, library="folium", tiles=None)
    made.save(tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text()
    assert "<img src=x" not in page
    assert all(("never seen" if np.isnan(value) else f"{value:.3f}") in page for value in values)


@pytest.mark.filterwarnings("ignore:The .* keyword in DataFrame.convert_dtypes")  # lonboard, with pandas 3
def test_a_lonboard_map_has_a_colour_for_each_field(store: Store) -> None:
    pytest.importorskip("lonboard", reason="lonboard is of the extra `notebook`")
    values = plots.latest_values(store.rows(box="b")).drop("C")
    (layer,) = plots.field_map(store.fields(), values).layers
    colours = np.asarray(pa.chunked_array(layer.get_fill_color).to_pylist())
    assert len(colours) == 3
    assert colours[store.fields().index.get_loc("C")].tolist()[:3] == [0xBB] * 3


# --- what cannot be drawn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [plots.series, plots.interactive_series])
def test_one_field_at_a_time(draw: Any) -> None:
    with pytest.raises(InputError, match=r"2 fields \(A, B\).*multiples"):
        draw(pd.concat([rows_of("A"), rows_of("B")]))
    with pytest.raises(InputError, match="2 boxes"):
        draw(pd.concat([rows_of("A"), rows_of("A", "c")]))
    with pytest.raises(InputError, match="no rows to draw"):
        draw(rows_of().iloc[:0])
    with pytest.raises(InputError, match=r"status missing.*store.rows"):
        draw(rows_of().drop(columns=["status"]))
    with pytest.raises(NotFoundError, match="no variable 'lai'; they have ndvi"):
        draw(rows_of(), "lai")


def test_what_a_picture_cannot_show_is_said(store: Store) -> None:
    with pytest.raises(InputError, match="these rows are of 101"):
        plots.multiples(pd.concat([rows_of(str(number)) for number in range(101)]))
    with pytest.raises(InputError, match="of one box; these rows are of 2"):
        plots.heatmap(pd.concat([rows_of(), rows_of(box_id="c")]))
    with pytest.raises(InputError, match="order='size' is not known"):
        plots.heatmap(rows_of(), order="size")  # type: ignore[arg-type]
    cube = store.cube("b").open()
    with pytest.raises(InputError, match="does not hold 2031-01-01: it was opened for 2025-04-01 to 2025-04-06"):
        plots.day(cube, date="2031-01-01")
    with pytest.raises(InputError, match="is not a day; write"):
        plots.day(cube, date="the third")
    with pytest.raises(NotFoundError, match="no array 'lai'; it has ndvi"):
        plots.day(cube, variable="lai")
    with pytest.raises(InputError, match="no day yet"):
        plots.day(cube.isel(time=slice(0, 0)))
    bare = store.fields().set_crs(None, allow_override=True)
    with pytest.raises(CrsError, match="have no CRS"):
        plots.day(cube, bare)
    with pytest.raises(CrsError, match="have no CRS"):
        plots.field_map(bare)
    with pytest.raises(InputError, match="no fields to draw"):
        plots.field_map(store.fields().iloc[:0])


@pytest.mark.parametrize(
    ("draw", "library", "extra"),
    [(plots.series, "matplotlib", "plots"), (plots.multiples, "matplotlib", "plots"),
     (plots.heatmap, "matplotlib", "plots"), (plots.interactive_series, "bokeh", "plots")],
)  # fmt: skip
def test_what_is_not_installed_names_the_extra(
    draw: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=rf"(?i){library}, which is not installed.*geofield\[{extra}\]"):
        draw(rows_of())


def test_importing_plots_loads_nothing_that_draws() -> None:
    import subprocess

    code = "import json, sys; import geofield; geofield.plots; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "bokeh", "folium", "lonboard"} & set(json.loads(done.stdout))
