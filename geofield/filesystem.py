"""The file system under a directory store: is it local, and what have crashes left on it.

A directory has no compare-and-swap: publishing relies on the operating system's locks, and those hold between machines
on few network file systems, and there depend on how they are mounted.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from geofield.errors import UnsafeStoreError, forbidden
from geofield.objects import permitted

ALLOW_VARIABLE = "GEOFIELD_ALLOW_NETWORK_FS"
ALLOW_OPTION = "allow_network_filesystem"
MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = frozenset(
    ("afs", "beegfs", "ceph", "cifs", "coda", "fhgfs", "fuse", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
     "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb", "smb2", "smb3", "smbfs")
)  # fmt: skip
# FUSE says nothing of where the bytes lie, so it counts as a network; these are known to be local
_LOCAL_FUSE = frozenset(("fuse.fuse-overlayfs", "fuseblk"))
_PLAIN = ("boxes", "inbox", "progress", "published", "runs")  # folders of plain objects; libraries keep the others
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp|\.probe-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: where, of which type, and from what."""

    point: str
    type: str
    source: str

    @property
    def is_network(self) -> bool:
        """True where locks may not hold between machines."""
        if self.type in _LOCAL_FUSE:
            return False
        return self.type in _NETWORK or self.type.startswith("fuse.")


def parse_mounts(text: str) -> list[Mount]:
    """The mounts of `/proc/self/mountinfo`, in order; lines that are not understood are left out.

    Notes
    -----
    proc(5): `36 35 98:0 /root /point rw,noatime master:1 - type source options`; the fields before the dash vary in
    number, and blanks in paths are written in octal.
    """
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if dash and len(left) >= 6 and len(right) >= 2:
            mounts.append(Mount(_unescaped(left[4]), right[0], _unescaped(right[1])))
    return mounts


def mount_of(path: Path, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that an absolute path lies on: the deepest, and of several at one point the last."""
    found: Mount | None = None
    for mount in mounts:
        holds = path.is_relative_to(mount.point)
        if holds and (found is None or len(Path(mount.point).parts) >= len(Path(found.point).parts)):
            found = mount
    return found


def check_filesystem(root: Path, *, allowed: bool = False) -> None:
    """Refuse a directory on a network file system.

    Parameters
    ----------
    allowed
        The user says that it is all right. The variable `GEOFIELD_ALLOW_NETWORK_FS` says the same.

    Raises
    ------
    UnsafeStoreError
        Where it lies, and what to do. Nothing is raised on systems that do not tell their mounts.
    """
    if allowed or os.environ.get(ALLOW_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on"):
        return
    try:
        text = MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    mount = mount_of(root.resolve(), parse_mounts(text))
    if mount is not None and mount.is_network:
        raise UnsafeStoreError(
            f"{root} lies on a network file system ({mount.type}, {mount.source} at {mount.point}). Locks may not hold "
            "there between machines: two writers could publish at once, and days would be lost. Give a directory on a "
            "local disk, or s3://bucket/prefix. If writers run on one machine only, or the locks of this file system "
            f"are known to hold, set {ALLOW_VARIABLE}=1 (in code: storage_options={{'{ALLOW_OPTION}': True}})."
        )


@contextlib.contextmanager
def directory_lock(root: Path, name: str, *, allowed: bool = False) -> Iterator[None]:
    """Hold the lock `name` of a directory store; the system releases it when the process dies.

    `allowed` as in `check_filesystem`, which is asked first.
    """
    from filelock import FileLock

    check_filesystem(root, allowed=allowed)
    path = root / ".locks" / f"{name}.lock"
    held = FileLock(path)
    with permitted("locked", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def check_writable(path: Path) -> None:
    """`AccessError` where this user cannot make files in a folder; one that is not there is made in what is above it.

    Asked before work is handed to a library that panics when it may not write.
    """
    while not path.is_dir() and path != path.parent:
        path = path.parent
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise forbidden(f"{path} cannot be written by this user")


def temporary_files(root: Path, before: dt.datetime) -> list[Path]:
    """Files that a writer made beside a plain object and did not live to rename, last touched before a time (aware)."""
    folders = [root, *(Path(place) for name in _PLAIN for place, _, _ in os.walk(root / name))]
    return sorted(path for folder in folders for path in _temporary_in(folder, before.timestamp()))


def _temporary_in(folder: Path, before: float) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if _TEMPORARY.fullmatch(entry.name) and entry.stat().st_mtime < before:
                yield Path(entry.path)


def remove_empty_folders(folder: Path) -> None:
    """Remove a folder and those below it that hold no file."""
    for place, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # it holds something
            os.rmdir(place)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
