"""Making a repository so that it is there as a whole or not at all.

Icechunk makes one step by step and refuses a place where something lies already, so a creation that was killed could
never be done again, and two at once are not safe. Here it is made elsewhere, with its arrays, and brought in by one
step: a directory by renaming it, an S3 prefix by creating its branch `main` last and only once.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import icechunk
import zarr

from geofield.cube.failures import answering
from geofield.cube.schema import Schema, create_arrays
from geofield.errors import CorruptStoreError
from geofield.filesystem import remove_empty_folders
from geofield.store import Location

MAIN = "main"
PRESENT = f"refs/branch.{MAIN}/ref.json"
"""The object that names the present of a repository: without it, there is none."""


def create_repository(
    location: Location,
    key: str,
    schema: Schema,
    configuration: icechunk.RepositoryConfig,
    message: str,
    metadata: Mapping[str, Any],
) -> None:
    """Make a repository with empty arrays; nothing happens when there is one.

    On a directory the caller holds the store's lock.

    Raises
    ------
    CorruptStoreError
        There is something, and it is no repository.
    """
    with answering(f"see whether {key} is there"):
        if icechunk.Repository.exists(location.icechunk_storage(key)):
            return
    if location.is_s3:
        with tempfile.TemporaryDirectory(prefix="geofield-") as folder:
            _build(Path(folder), schema, configuration, message, metadata)
            _upload(Path(folder), location, key)
        return
    target = Path(location.url) / key
    new = target.with_name(f".{target.name}.new")  # no box begins with a dot; one that was cut leaves this behind
    shutil.rmtree(new, ignore_errors=True)
    _build(new, schema, configuration, message, metadata)
    remove_empty_folders(target)
    try:
        os.rename(new, target)
    except OSError as error:
        raise CorruptStoreError(
            f"{target} holds files and is no cube, so none can be made there: {error}. Move them away."
        ) from error


def _build(
    folder: Path,
    schema: Schema,
    configuration: icechunk.RepositoryConfig,
    message: str,
    metadata: Mapping[str, Any],
) -> None:
    options: dict[str, Any] = {}
    if "spec_version" in inspect.signature(icechunk.Repository.create).parameters:
        options["spec_version"] = 1  # readable by every Icechunk that geofield supports
    storage = icechunk.local_filesystem_storage(str(folder))
    session = icechunk.Repository.create(storage, config=configuration, **options).writable_session(MAIN)
    create_arrays(zarr.group(store=session.store), schema)
    session.commit(message, metadata=dict(metadata))


def _upload(folder: Path, location: Location, key: str) -> None:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert PRESENT in files, files
    files.remove(PRESENT)
    # What another creation left is never written over: it may be the one that just became the repository.
    for name in [*files, PRESENT]:
        location.create(f"{key}/{name}", (folder / name).read_bytes())
