"""Credentials for S3, looked up by the process that reads, at the moment it reads, and never kept with a source."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import Any

from rasterio.session import DummySession

from geofield.errors import AccessError

_lock = threading.Lock()


class S3Session(DummySession):  # type: ignore[misc]
    """Hands GDAL the credentials that botocore finds: variables, files and profiles, roles, metadata servers.

    GDAL's own search knows fewer of these, so that a folder could be listed and its files not be read.

    Parameters
    ----------
    profile
        Of the AWS configuration files; None: that of the environment.
    """

    def __init__(self, profile: str | None = None) -> None:
        super().__init__()
        self._profile = profile

    def get_credential_options(self) -> dict[str, Any]:
        """What Rasterio puts into GDAL's configuration of this thread; `AccessError` when there are none."""
        variables = tuple(sorted((name, value) for name, value in os.environ.items() if name[:4] == "AWS_"))
        session = _session(variables, self._profile)
        with _lock:  # the first call may ask a server, and a role's credentials are renewed here
            found = _credentials(session, self._profile)
            frozen = None if found is None else found.get_frozen_credentials()
        if frozen is None or not frozen.access_key:
            raise AccessError(
                "There are no credentials for S3. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or "
                "give the source `anonymous: true` for an open bucket."
            )
        options = {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
        if region := session.get_config_variable("region"):
            options["AWS_REGION"] = region
        return options


@lru_cache(maxsize=4)
def _session(variables: tuple[tuple[str, str], ...], profile: str | None) -> Any:
    """One session for each state of the environment: it renews credentials by itself, but never looks again."""
    from botocore.session import Session  # folders do without it

    return Session(profile=profile)


def _credentials(session: Any, profile: str | None) -> Any:
    from botocore.exceptions import ProfileNotFound

    try:
        return session.get_credentials()
    except ProfileNotFound as error:
        raise AccessError(
            f"The AWS configuration of this process has no profile {profile!r}. Add it, or name another `profile`."
        ) from error
