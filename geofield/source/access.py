"""How imagery is reached: what a source says about it, and the secrets of the environment that go with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from geofield.errors import AccessError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,100}$"


class Auth(BaseModel):
    """A header of HTTP whose secret is in an environment variable, named here and never written down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variable: str = Field(pattern=_NAME, description="environment variable that holds the token")
    header: str = Field("Authorization", pattern=r"^[A-Za-z][A-Za-z0-9-]{0,60}$")
    scheme: str = Field("Bearer", pattern=r"^[A-Za-z]{0,20}$", description="said before the token; may be empty")
    hosts: tuple[str, ...] = Field((), description="who gets it; by default the host of `url` alone")

    def headers(self, url: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What a request to `url` carries: nothing for other hosts, nor where the connection is not encrypted.

        Raises
        ------
        AccessError
            The variable is not set.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host not in self.hosts or not (parts.scheme == "https" or host in _LOOPBACK):
            return {}
        token = environ.get(self.variable, "")
        if not token.strip() or "\n" in token or "\r" in token:
            raise AccessError(
                f"{host} asks for a token, and the environment variable {self.variable} does not hold one. Set it for "
                "every process that reads imagery."
            )
        return {self.header: f"{self.scheme} {token}".strip()}


@dataclass(frozen=True)
class Access:
    """How the files of a source are reached.

    Attributes
    ----------
    anonymous
        Requests to S3 are not signed.
    requester_pays
        Who reads pays for it, on S3.
    endpoint
        The S3 server; None: that of the environment.
    profile
        Of the AWS configuration files; None: that of the environment.
    auth
        A header of HTTP.
    sign
        Whose signed addresses are needed.
    only_plain_rasters
        GeoTIFF and JPEG 2000, by the file's name. An address in a catalogue is somebody else's choice, and some of
        GDAL's formats (VRT) name further files, those of this machine among them.
    """

    anonymous: bool = False
    requester_pays: bool = False
    endpoint: str | None = None
    profile: str | None = None
    auth: Auth | None = None
    sign: Literal["planetary-computer"] | None = None
    only_plain_rasters: bool = False

    def headers(self, url: str) -> dict[str, str]:
        """Of a request to `url`."""
        return {} if self.auth is None else self.auth.headers(url)


PLAIN = Access()
"""Nothing special."""


def is_remote(href: str) -> bool:
    """Whether an address is reached over a network."""
    return href.startswith(("s3://", "http://", "https://"))
