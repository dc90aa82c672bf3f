"""A store as people use it: its boxes, cubes, fields and rows."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from geofield.boxes import MAX_PIXELS, Box, check_box_id, resolve_grid
from geofield.boxfiles.wording import faults
from geofield.cube.cube import Cube, as_date
from geofield.errors import BoxError, ConfigurationError, CorruptStoreError, NotFoundError
from geofield.fields import Placement, place_fields
from geofield.pipeline.boxfields import BoxFields, box_fields
from geofield.pipeline.layers import cube_schema, is_cube_of, value_columns
from geofield.pipeline.removal import check_not_half_removed, forget_fields, remove_box
from geofield.pipeline.run import Run, package_version
from geofield.recipe.variables import check_recipe
from geofield.reduce.weights import WeightStore
from geofield.registry import FieldRegistry
from geofield.results.rows import KEY_COLUMNS, Results
from geofield.source import open_source
from geofield.source.protocol import Source
from geofield.store import Location

if TYPE_CHECKING:
    import geopandas as gpd

FORMAT = 1
_DESCRIPTION = "geofield.json"


class Store:
    """A store that exists. Made by `open_store` or `create_store`.

    Parameters
    ----------
    location
        Where it lies.
    defaults
        What new boxes have when neither their file nor the caller says.
    """

    def __init__(self, location: Location, defaults: Mapping[str, Any]) -> None:
        self.location = location
        self.defaults = dict(defaults)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def url(self) -> str:
        """The directory, or `s3://bucket/prefix`."""
        return self.location.url

    # --- boxes -----------------------------------------------------------------------------------------------------

    def boxes(self) -> dict[str, Box]:
        """Every box by its id."""
        infos = [info for info in self.location.list("boxes") if info.key.endswith(".json")]
        boxes = (self._read_box(info.key) for info in infos)
        return {box.id: box for box in boxes}

    def box(self, box_id: str) -> Box:
        """One box; `NotFoundError` names those that there are."""
        check_box_id(box_id)
        try:
            return self._read_box(f"boxes/{box_id}.json")
        except NotFoundError as error:
            known = ", ".join(self.boxes()) or "none yet; add one with `geofield add-box`"
            raise NotFoundError(f"There is no box {box_id!r} in {self.url}; it has: {known}.") from error

    def _read_box(self, key: str) -> Box:
        data = self.location.read(key)
        try:
            return Box.model_validate_json(data)
        except ValidationError as error:
            reason = "; ".join(faults(error))
            raise CorruptStoreError(
                f"{key} in {self.url} is not a box: {reason}. Bring the file back from a backup, or remove the box."
            ) from error

    def add_box(self, box: Box, max_pixels: int = MAX_PIXELS) -> Box:
        """Register a box: resolve its grid, make its empty cube.

        Adding the same box again changes nothing.

        Raises
        ------
        BoxError
            Another box has this id, or one that had it is only half removed.
        GridError, RecipeError, SourceError
            The box asks for what cannot be.
        """
        source = open_source(box.source)
        check_recipe(box, source.bands())
        grid = resolve_grid(box, source.native_geobox() if box.grid.native else None, max_pixels)
        resolved = box.model_copy(update={"pixels": grid.to_dict()})
        cube_schema(resolved, grid)
        check_not_half_removed(self.location, box.id)
        key = f"boxes/{box.id}.json"
        if not self.location.create(key, resolved.model_dump_json(indent=1).encode()):
            standing = self._read_box(key)
            resolved = resolved.model_copy(update={"imported": standing.imported})
            if standing != resolved:
                raise BoxError(
                    f"Box {box.id!r} is in the store already, with other {_difference(standing, resolved)}. "
                    "Give the new one another id, or change this one with --replace."
                )
        self.cube(box.id).create(cube_schema(resolved, grid), Run().metadata("create", []))
        return resolved

    def change_box(self, box: Box, max_pixels: int = MAX_PIXELS) -> Box:
        """Say that a box is to be another: the next run builds its new cube beside the old one and swaps it in.

        A change that leaves the cube that stands as it is (the source's settings, `settle_days`, statistics) holds at
        once, unless another one is pending: then it takes its place.

        Raises
        ------
        BoxError
            A new cube would lack days that the present one holds.
        GridError, RecipeError, SourceError
            The box asks for what cannot be.
        """
        source = open_source(box.source)
        check_recipe(box, source.bands())
        grid = resolve_grid(box, source.native_geobox() if box.grid.native else None, max_pixels)
        with self.location.lock(_change_lock(box.id)):
            standing, cube = self.box(box.id), self.cube(box.id)
            changed = box.model_copy(update={"pixels": grid.to_dict(), "imported": standing.imported})
            cube.create(cube_schema(standing, standing.resolved), Run().metadata("create", []))
            # the description may be behind the cube: a run can die between the two
            head = cube.head()
            is_built = is_cube_of(changed, cube, head)
            if not is_built:
                _check_rebuild(standing, changed, head.first)
            # what is pending may be swapped in at any moment, so that what takes its place has to be pending too
            is_pending = self.location.exists(f"changes/{box.id}.json")
            folder = "boxes" if is_built and not is_pending else "changes"
            self.location.write(f"{folder}/{box.id}.json", changed.model_dump_json(indent=1).encode())
        return changed

    def pending_change(self, box_id: str) -> Box | None:
        """The box as it is to be, while its new cube is not there yet."""
        try:
            return self._read_box(f"changes/{check_box_id(box_id)}.json")
        except NotFoundError:
            return None

    def finish_change(self, box: Box) -> None:
        """Make a changed box, whose cube has been swapped in, the one that holds.

        What was asked for meanwhile stays pending. On S3, where nothing is locked, not what comes in the moment between
        looking and removing.
        """
        with self.location.lock(_change_lock(box.id)):
            self.location.write(f"boxes/{box.id}.json", box.model_dump_json(indent=1).encode())
            if self.pending_change(box.id) == box:
                self.location.delete(f"changes/{box.id}.json")

    def note_imported(self, box_id: str, last: dt.date) -> None:
        """Say that a box's days up to `last` come from elsewhere, so that they are not compared with its source.

        Raises
        ------
        BoxError
            A change of the box is pending, whose new cube would not have those days.
        """
        with self.location.lock(_change_lock(box_id)):
            box = self.box(box_id)
            if box.imported is not None and box.imported >= last:
                return
            if self.pending_change(box_id) is not None:
                raise BoxError(f"Box {box_id} was changed and its new cube is not built yet. Run first, then import.")
            noted = box.model_copy(update={"imported": last})
            self.location.write(f"boxes/{box_id}.json", noted.model_dump_json(indent=1).encode())

    def source(self, box_id: str) -> Source:
        """Where the pixels of a box come from."""
        return open_source(self.box(box_id).source)

    # --- cubes, fields, rows ---------------------------------------------------------------------------------------

    def cube(self, box_id: str) -> Cube:
        """The cube of a box."""
        return Cube(self.location, check_box_id(box_id))

    def results(self, box_id: str) -> Results:
        """The rows table of a box, as the pipeline takes it."""
        return Results(self.location, check_box_id(box_id))

    @property
    def registry(self) -> FieldRegistry:
        """Every version of every field."""
        return FieldRegistry(self.location)

    def fields(self) -> gpd.GeoDataFrame:
        """The current version of every field, longitude and latitude, indexed by field id."""
        from geofield.fields import field_geometries
        from geofield.grid import parse_crs

        return field_geometries(self.registry.current(), parse_crs("EPSG:4326"), 1e-9)

    def withdraw_fields(self, field_ids: Sequence[str], run: Run | None = None) -> int:
        """Say that some fields stop: the next run removes their rows. How many were not withdrawn yet."""
        return self.registry.withdraw(field_ids, (run or Run()).metadata("withdraw", []))

    def forget_fields(self, field_ids: Sequence[str], run: Run | None = None) -> int:
        """Remove some fields with all their history; how many rows went. See `geofield.pipeline.removal`."""
        tables = {name: self.results(name) for name in self.boxes()}
        for info in self.location.list("weights"):  # a cache; it holds the shapes of fields
            self.location.delete(info.key)
        return forget_fields(field_ids, self.registry, tables, (run or Run()).metadata("forget", []))

    def remove_box(self, box_id: str) -> int:
        """Remove a box with all that belongs to it; how many objects went."""
        return remove_box(self.location, check_box_id(box_id))

    def place(self, table: pd.DataFrame, boxes: Mapping[str, Box] | None = None) -> Placement:
        """Which boxes some field versions belong to."""
        return place_fields(table, self.boxes() if boxes is None else boxes)

    def box_fields(
        self, box_id: str, field_ids: Sequence[str] | None = None, placed: pd.DataFrame | None = None
    ) -> BoxFields:
        """The current fields of a box, ready for the pipeline.

        Parameters
        ----------
        field_ids
            Some of them; default all.
        placed
            Fields that are known to belong to the box, where somebody has placed those of all boxes at once.
        """
        box = self.box(box_id)
        if placed is not None:
            return box_fields(box, placed, WeightStore(self.location, box_id))
        current = self.registry.current()
        if field_ids is not None:
            current = current[current["field_id"].isin(list(field_ids))]
        placed = place_fields(current, {box_id: box}, explain=False).table
        return box_fields(box, placed, WeightStore(self.location, box_id))

    def rows(
        self,
        box: str | None = None,
        field: str | Sequence[str] | None = None,
        *,
        start: dt.date | str | None = None,
        end: dt.date | str | None = None,
        geometry: bool = False,
        as_of: int | dt.datetime | None = None,
    ) -> pd.DataFrame:
        """Rows by box, field and date.

        Parameters
        ----------
        box
            Default: every box.
        field
            One id or several; default all.
        start, end
            Days, both included.
        geometry
            A GeoDataFrame with the fields' polygons in longitude and latitude.
        as_of
            A time or a version of the table.
        """
        names = [box] if box is not None else sorted(self.boxes())
        if box is not None:
            self.box(box)
        wanted = [field] if isinstance(field, str) else None if field is None else list(field)
        low, high = (as_date(value) if value is not None else None for value in (start, end))
        parts = [self.results(name).read(fields=wanted, start=low, end=high, as_of=as_of) for name in names]
        if as_of is None:  # a box that was changed keeps the columns of its past in the table, empty
            parts = [_of_today(part, self.box(name)) for part, name in zip(parts, names, strict=True)]
        filled = [part for part in parts if len(part)] or parts[:1]
        frame = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
        return self._with_geometry(frame) if geometry else frame

    def _with_geometry(self, rows: pd.DataFrame) -> gpd.GeoDataFrame:
        import geopandas as gpd

        shapes = self.fields()["geometry"]
        return gpd.GeoDataFrame(rows, geometry=shapes.reindex(rows["field_id"]).to_numpy(), crs="EPSG:4326")


def create_store(
    url: str | os.PathLike[str],
    defaults: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Store:
    """Make a store, or open it when it exists with the same defaults.

    Raises
    ------
    UnsafeStoreError
        The server lacks a guarantee that every commit relies on.
    ConfigurationError
        There is a store with other defaults.
    """
    try:
        store = open_store(url, storage_options)
    except NotFoundError:
        location = Location.parse(url, storage_options)
        location.probe()
        description = {"format": FORMAT, "defaults": dict(defaults or {}), "geofield": package_version("geofield")}
        if location.create(_DESCRIPTION, json.dumps(description, indent=1).encode()):
            return Store(location, description["defaults"])  # type: ignore[arg-type]
        store = open_store(url, storage_options)  # somebody else made it meanwhile
    if defaults is not None and store.defaults != dict(defaults):
        raise ConfigurationError(f"{store.url} is a store already, with other defaults: {store.defaults}.")
    return store


def open_store(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Store:
    """Open a store.

    Parameters
    ----------
    url
        A directory, or `s3://bucket/prefix`.
    storage_options
        `endpoint_url`, `region`, `anonymous`; the AWS variables are the default. Credentials come from the environment
        or the AWS files.

    Raises
    ------
    NotFoundError
        There is no store.
    """
    location = Location.parse(url, storage_options)
    try:
        value = json.loads(location.read(_DESCRIPTION))
    except NotFoundError as error:
        raise NotFoundError(f"There is no store at {location.url}. Make one: geofield init {location.url}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptStoreError(f"{_DESCRIPTION} in {location.url} is not JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("defaults", {}), dict):
        raise CorruptStoreError(
            f"{_DESCRIPTION} in {location.url} does not describe a store. Bring it back from a copy."
        )
    if value.get("format") != FORMAT:
        raise CorruptStoreError(
            f"{location.url} has format {value.get('format')!r}; this geofield reads {FORMAT}. Update it."
        )
    return Store(location, value.get("defaults", {}))


def _check_rebuild(standing: Box, changed: Box, first: dt.date | None) -> None:
    if first is not None and changed.start > first:
        raise BoxError(
            f"Box {changed.id} holds days and rows from {first} on; one that begins on {changed.start} would lose "
            "some. Give it another id."
        )
    if standing.imported is not None:
        raise BoxError(
            f"The days of box {standing.id} up to {standing.imported} were imported. A new cube is built from the "
            "box's own source, which does not have them. Make a box with another id that is as this one is to be, and "
            "import the imagery into it."
        )


def _change_lock(box_id: str) -> str:
    return f".change-{box_id}"  # no box can have such an id


def _of_today(rows: pd.DataFrame, box: Box) -> pd.DataFrame:
    *first, last = KEY_COLUMNS
    return rows[[name for name in (*first, *value_columns(box), last) if name in rows.columns]]


def _difference(one: Box, other: Box) -> str:
    names = [name for name in type(one).model_fields if getattr(one, name) != getattr(other, name)]
    return ", ".join(names)
