"""Which fields have area inside which boxes: an index of envelopes first, exact areas only near the edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from pyproj import CRS, Geod, Transformer

from geofield.boxes import Box
from geofield.errors import CrsError
from geofield.fields.crsnames import LONLAT, field_crs, parsed
from geofield.fields.geometries import projected_shapes
from geofield.fields.report import Objects
from geofield.grid import crs_text
from geofield.projection import project

Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

NO_AREA = 1e-9
"""An overlap with less than this share of the smaller of the two areas is a touch: the rest is rounding."""
MARGIN_DEG = 1e-4
"""Around envelopes in degrees: about ten metres, more than any of them is off."""
TOLERANCE = 1e-6
"""Of edges projected to the CRS of a box, as a share of the box's diagonal."""
ANY, NONE = -1, -2
"""In place of the position of a box."""
_GLOBE = shapely.box(-180, -90, 180, 90)
_ALONG = np.linspace(0, 1, 5)
_GEOD = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Rectangle:
    """Bounds in a CRS."""

    crs: CRS
    bounds: tuple[float, float, float, float]

    @property
    def polygon(self) -> Any:
        """The rectangle as a polygon in its CRS."""
        return shapely.box(*self.bounds)

    @property
    def tolerance(self) -> float:
        """Of edges projected to this CRS."""
        xmin, ymin, xmax, ymax = self.bounds
        return TOLERANCE * float(np.hypot(xmax - xmin, ymax - ymin))


class Extents:
    """The extents of boxes, ready to be asked about many fields.

    The extent of a box is the rectangle it asks for; of a box on its source's own grid, what of it has pixels.
    """

    def __init__(self, boxes: Mapping[str, Box]) -> None:
        self.ids = sorted(boxes)
        self.position = {box_id: index for index, box_id in enumerate(self.ids)}
        self.rectangles = [_rectangles(boxes[box_id]) for box_id in self.ids]
        self.lonlat = np.array([_in_degrees(found) for found in self.rectangles], dtype=object)
        self._inner = shapely.buffer(self.lonlat, -MARGIN_DEG)
        self._inner[self.lonlat == _GLOBE] = None  # where the outline is not known
        shapely.prepare(self._inner)
        self._tree = shapely.STRtree(shapely.buffer(shapely.envelope(self.lonlat), MARGIN_DEG, join_style="mitre"))

    def overlaps(self, fields: Fields, only: Index) -> tuple[Index, Index, Index]:
        """Pairs of fields and boxes with area in common.

        Parameters
        ----------
        fields
            n fields.
        only
            (n,) position of the one box that a field may belong to, `ANY` or `NONE`.

        Returns
        -------
        field, box
            Positions, of equal length, ordered by field and box.
        lost
            Positions of fields that cannot be projected to a box near them.
        """
        field, box = self._tree.query(fields.envelopes)
        asked = (only[field] == ANY) | (only[field] == box)
        field, box = field[asked], box[asked]
        inside = shapely.contains_properly(self._inner[box], fields.envelopes[field])
        lost: set[int] = set()
        for index in np.unique(box[~inside]).tolist():
            pairs = np.flatnonzero((box == index) & ~inside)
            common, unprojected = self._with_area(fields, field[pairs], index)
            inside[pairs] = common
            lost |= unprojected
        field, box = field[inside], box[inside]
        order = np.lexsort((box, field))
        return field[order], box[order], np.array(sorted(lost), dtype=np.intp)

    def _with_area(self, fields: Fields, rows: Index, box: int) -> tuple[Mask, set[int]]:
        common, lost = np.ones(len(rows), dtype=bool), set[int]()
        for rectangle in self.rectangles[box]:
            shapes, missing = fields.projected(rows, rectangle)
            lost |= missing
            bent = ~(shapely.is_valid(shapes) | shapely.is_missing(shapes))
            shapes[bent] = shapely.make_valid(shapes[bent])  # thin parts may cross themselves in another CRS
            areas = shapely.area(shapely.intersection(shapes, rectangle.polygon))
            smaller = np.minimum(shapely.area(shapes), rectangle.polygon.area)
            common &= np.nan_to_num(areas) > NO_AREA * np.nan_to_num(smaller, nan=np.inf)
        return common, lost

    def touch(self, fields: Fields, row: int, box: int) -> str | None:
        """`edge` or `corner` when a field without area in the box touches it; else None."""
        rectangle = self.rectangles[box][0]
        shape = fields.projected(np.array([row]), rectangle)[0][0]
        if shape is None or shapely.distance(shape, rectangle.polygon) > rectangle.tolerance * 1e-3:
            return None
        snapped = shapely.make_valid(shapely.snap(shape, rectangle.polygon, rectangle.tolerance * 1e-3))
        return "corner" if shapely.length(shapely.intersection(snapped, rectangle.polygon)) == 0 else "edge"

    def nearest(self, fields: Fields, rows: Index) -> Index:
        """(n,) position of the box nearest to each field, by degrees."""
        found = shapely.STRtree(self.lonlat).query_nearest(fields.envelopes[rows], all_matches=False)
        nearest = np.zeros(len(rows), dtype=np.intp)
        nearest[found[0]] = found[1]
        return nearest

    def distance_km(self, fields: Fields, rows: Index, boxes: Index) -> Floats:
        """(n,) kilometres from the envelope of each field to a box."""
        ends = shapely.get_coordinates(shapely.shortest_line(fields.envelopes[rows], self.lonlat[boxes])).reshape(-1, 4)
        return np.asarray(_GEOD.inv(ends[:, 0], ends[:, 1], ends[:, 2], ends[:, 3])[2]) / 1000

    def swapped(self, fields: Fields, rows: Index, only: Index) -> Index:
        """(n,) position of a box in which a field would lie with longitude and latitude swapped, or -1."""
        xmin, ymin, xmax, ymax = shapely.bounds(fields.envelopes[rows]).T
        turned = shapely.box(ymin, xmin, ymax, xmax)
        found = np.full(len(rows), -1, dtype=np.intp)
        field, box = self._tree.query(turned)
        common = shapely.area(shapely.intersection(turned[field], self.lonlat[box])) > 0
        asked = (only[field] == ANY) | (only[field] == box)
        found[field[common & asked]] = box[common & asked]
        found[~fields.geographic[rows]] = -1
        return found


class Fields:
    """The polygons of a table, with envelopes in degrees."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.shapes: Objects = shapely.from_wkb(table["geometry"].to_numpy(object))
        self.names = table["crs"].reset_index(drop=True)
        self.envelopes = np.empty(len(table), dtype=object)
        self.geographic = np.zeros(len(table), dtype=bool)
        for name, rows in self.names.groupby(self.names.to_numpy(), sort=False).indices.items():
            bounds = shapely.bounds(self.shapes[rows])
            self.geographic[rows] = parsed(str(name)).is_geographic
            self.envelopes[rows] = shapely.box(*_degrees(bounds, str(name)).T)

    def projected(self, rows: Index, rectangle: Rectangle) -> tuple[Objects, set[int]]:
        """Shapes in the CRS of a rectangle, None where that is impossible, and the positions of those."""
        names = self.names.iloc[rows]
        try:
            return projected_shapes(self.shapes[rows], names, rectangle.crs, rectangle.tolerance), set()
        except CrsError:
            shapes, lost = np.empty(len(rows), dtype=object), set[int]()
            for index, row in enumerate(rows.tolist()):
                try:
                    shapes[index] = project(
                        self.shapes[row : row + 1], parsed(names.iloc[index]), rectangle.crs, rectangle.tolerance
                    )[0]
                except CrsError:
                    lost.add(row)
            return shapes, lost


def _rectangles(box: Box) -> tuple[Rectangle, ...]:
    asked = Rectangle(parsed(field_crs(box.crs)), box.bbox)
    if not box.grid.native:
        return (asked,)  # its grid holds all of it
    grid = box.resolved
    return (asked, Rectangle(parsed(field_crs(crs_text(grid.crs))), grid.bounds))


def _in_degrees(rectangles: tuple[Rectangle, ...]) -> Any:
    """The outline in longitude and latitude; the globe where it cannot be drawn there (across 180 degrees)."""
    outline = _GLOBE
    for rectangle in rectangles:
        try:
            shape = project(np.array([rectangle.polygon], dtype=object), rectangle.crs, parsed(LONLAT), MARGIN_DEG / 10)
        except CrsError:
            return _GLOBE
        xmin, _, xmax, _ = shape[0].bounds
        if not shape[0].is_valid or xmax - xmin > 180:
            return _GLOBE
        outline = shapely.intersection(outline, shape[0])
    return outline


def _degrees(bounds: Floats, name: str) -> Floats:
    """(n, 4) envelopes in degrees of bounds in a CRS, never too small."""
    if name == LONLAT:
        return bounds
    xmin, ymin, xmax, ymax = (column[:, None] for column in bounds.T)
    xs, ys = xmin + (xmax - xmin) * _ALONG, ymin + (ymax - ymin) * _ALONG
    x = np.concatenate([xs, xs, np.broadcast_to(xmin, ys.shape), np.broadcast_to(xmax, ys.shape)], axis=1)
    y = np.concatenate([np.broadcast_to(ymin, xs.shape), np.broadcast_to(ymax, xs.shape), ys, ys], axis=1)
    lon, lat = Transformer.from_crs(parsed(name), parsed(LONLAT), always_xy=True).transform(x, y)
    low, high = np.stack([lon.min(1), lat.min(1)], 1), np.stack([lon.max(1), lat.max(1)], 1)
    margin = 0.1 * (high - low) + MARGIN_DEG / 2
    found = np.concatenate([np.maximum(low - margin, (-180, -90)), np.minimum(high + margin, (180, 90))], axis=1)
    found[~np.isfinite(found).all(axis=1)] = (-180, -90, 180, 90)
    return np.asarray(found)
