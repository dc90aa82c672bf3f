"""The keys of a STAC source, and what is known of the catalogues that many use."""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from geofield.errors import SourceError
from geofield.source.access import Access, Auth
from geofield.source.listing import absolute_root
from geofield.source.settings import BandPlace, Settings, check_no_credentials, check_quality, with_index
from geofield.source.stacbands import QUALITY, offered_bands
from geofield.source.stacquery import OPERATORS
from geofield.source.stacradiometry import Radiometry

PresetName = Literal["earth-search", "planetary-computer", "cdse", "generic"]
_HOSTS: dict[str, PresetName] = {
    "earth-search.aws.element84.com": "earth-search",
    "planetarycomputer.microsoft.com": "planetary-computer",
    "stac.dataspace.copernicus.eu": "cdse",
    "catalogue.dataspace.copernicus.eu": "cdse",
}
_WRONG_FLAGS = (
    "Some items of Earth Search's sentinel-2-l2a say wrongly whether their offset has been taken out, and nothing in "
    "them tells which: reflectances may be off by 0.1. Use sentinel-2-c1-l2a for the years that it has."
)
_CDSE_S3 = "https://eodata.dataspace.copernicus.eu"


class BandAsset(BandPlace):
    """Where a band is: an asset's key. `scale`, `offset` and `nodata` stand in for what items say."""

    asset: str = Field(min_length=1)
    index: int = Field(1, ge=1, description="band in the file, counted from 1")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """`visual#2` is band 2 of the asset `visual`."""
        return with_index("asset", value)

    @property
    def radiometry(self) -> Radiometry:
        """What the box says about the numbers."""
        return Radiometry(self.scale, self.offset, self.nodata)


class StacSettings(Settings):
    """Keys of a source of STAC items."""

    type: Literal["stac"]
    url: str = Field(
        min_length=1, description="an API, or a catalogue, collection or list of items: URL, s3:// or path"
    )
    collection: tuple[str, ...] = Field((), description="id, or ids; the first is preferred among equals")
    preset: PresetName | None = Field(None, description="by default guessed from the host of `url`")
    query: dict[str, dict[str, Any]] = Field(default_factory=dict, description='{"eo:cloud_cover": {"lt": 80}}')
    max_cloud_cover: float | None = Field(None, ge=0, le=100, description="per cent, of the whole scene")
    bands: dict[str, BandAsset] | None = Field(
        None, description="band -> asset, or {asset, index, scale, ...}; by default the common names of the collection"
    )
    quality: tuple[str, ...] | None = Field(None, description="bands of classes or bits: never interpolated")
    etags: bool = Field(False, description="ask for the ETag of every file: for items that keep quiet about changes")
    anonymous: bool = Field(False, description="requests to S3 are not signed")
    requester_pays: bool = Field(False, description="who reads pays, on S3")
    endpoint: str | None = Field(None, description="URL of the S3 server that holds the files")
    profile: str | None = Field(None, description="of the AWS configuration files, for the files of the source alone")
    auth: Auth | None = Field(None, description="{variable: NAME}: a token in an environment variable")

    @field_validator("url")
    @classmethod
    def _open_url(cls, value: str) -> str:
        check_no_credentials(value)
        if value.startswith(("http://", "https://")):
            return value
        return absolute_root(value)

    @field_validator("endpoint")
    @classmethod
    def _open_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not check_no_credentials(value).startswith(("http://", "https://")):
            raise SourceError(f"{value!r} is no URL of an S3 server: it begins with https://.")
        return value

    @field_validator("collection", mode="before")
    @classmethod
    def _one_collection(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("query")
    @classmethod
    def _known_operators(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, conditions in value.items():
            if unknown := [operation for operation in conditions if operation not in OPERATORS]:
                raise ValueError(f"{unknown[0]!r} is no comparison ({name}); there are {', '.join(OPERATORS)}")
        return value

    @model_validator(mode="after")
    def _known_quality(self) -> Self:
        check_quality(self.quality, self.band_names)
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """The bands, as named or as the collections usually have them."""
        return offered_bands(self.collection) if self.bands is None else tuple(self.bands)

    @property
    def quality_names(self) -> tuple[str, ...]:
        """The bands of classes, as named or by their usual names."""
        return tuple(name for name in self.band_names if name in QUALITY) if self.quality is None else self.quality

    @property
    def conditions(self) -> dict[str, dict[str, Any]]:
        """`query` with `max_cloud_cover`."""
        conditions = {name: dict(one) for name, one in self.query.items()}
        if self.max_cloud_cover is not None:
            conditions.setdefault("eo:cloud_cover", {})["lte"] = self.max_cloud_cover
        return conditions

    @property
    def known_as(self) -> PresetName:
        """The preset."""
        return self.preset or _HOSTS.get(urlsplit(self.url).hostname or "", "generic")

    @property
    def advice(self) -> tuple[str, ...]:
        """What is known to go wrong with such settings."""
        if self.known_as == "earth-search" and "sentinel-2-l2a" in self.collection:
            return (_WRONG_FLAGS,)
        return ()

    @property
    def access(self) -> Access:
        """How catalogue and files are reached."""
        preset = self.known_as
        auth = self.auth
        if auth is not None and not auth.hosts:
            auth = auth.model_copy(update={"hosts": (urlsplit(self.url).hostname or "",)})
        return Access(
            anonymous=self.anonymous,
            requester_pays=self.requester_pays,
            endpoint=self.endpoint or (_CDSE_S3 if preset == "cdse" else None),
            profile=self.profile,
            auth=auth,
            sign="planetary-computer" if preset == "planetary-computer" else None,
            only_plain_rasters=True,
        )
