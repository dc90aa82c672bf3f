"""A directory store on a network file system is refused; crashes leave nothing that nobody finds."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

import geofield
from geofield import filesystem
from geofield.errors import ConfigurationError, UnsafeStoreError
from geofield.filesystem import Mount, mount_of, parse_mounts, temporary_files
from geofield.store import Location

SAMPLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:1 / / rw,noatime shared:1 - ext4 /dev/vda1 rw,discard
31 27 0:40 / /data rw,relatime shared:7 master:3 - nfs4 server:/export rw,vers=4.2,proto=tcp
32 31 254:2 / /data/local\\040disk rw - xfs /dev/vdb rw
33 27 0:41 / /share rw - cifs //server/share rw,vers=3.1.1
34 27 0:42 / /media/me/remote rw - fuse.sshfs me@host:/srv rw
35 27 0:43 / /media/me/overlay rw - fuse.fuse-overlayfs fuse-overlayfs rw
36 27 8:17 / /media/stick rw - fuseblk /dev/sdb1 rw
37 27 0:44 / /twice rw - tmpfs tmpfs rw
38 27 0:45 / /twice rw - smb3 //server/other rw
39 27 0:46 / /odd rw
"""


@pytest.mark.parametrize(
    ("path", "type_", "is_network"),
    [
        ("/", "ext4", False),
        ("/media/me/store", "ext4", False),
        ("/data", "nfs4", True),
        ("/data/a/b", "nfs4", True),
        ("/database", "ext4", False),
        ("/data/local disk/store", "xfs", False),
        ("/share/store", "cifs", True),
        ("/media/me/remote/store", "fuse.sshfs", True),
        ("/media/me/overlay/store", "fuse.fuse-overlayfs", False),
        ("/media/stick/store", "fuseblk", False),
        ("/twice/store", "smb3", True),
        ("/odd", "ext4", False),
    ],
)
def test_the_mount_of_a_path(path: str, type_: str, is_network: bool) -> None:
    mount = mount_of(Path(path), parse_mounts(SAMPLE))
    assert mount is not None
    assert (mount.type, mount.is_network) == (type_, is_network)


def test_what_is_no_mount_table_has_no_mounts() -> None:
    assert parse_mounts("") == []
    assert parse_mounts("a - b\n - \n1 2 3 4 /x rw - nfs\n") == []
    assert mount_of(Path("/x"), []) is None
    assert parse_mounts(SAMPLE)[2] == Mount("/data", "nfs4", "server:/export")


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the system says is mounted from elsewhere."""
    folder = tmp_path / "mounted here"
    folder.mkdir()
    point = str(folder).replace(" ", "\\040")
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 254:1 / / rw - ext4 /dev/vda1 rw\n2 1 0:9 / {point} rw - nfs server:/export rw\n")
    monkeypatch.setattr(filesystem, "MOUNTS", table)
    monkeypatch.delenv("GEOFIELD_ALLOW_NETWORK_FS", raising=False)
    return folder


def test_a_store_on_a_network_is_refused_before_anything_is_written(network: Path) -> None:
    with pytest.raises(UnsafeStoreError, match=r"network file system \(nfs, server:/export at .*ALLOW_NETWORK_FS=1"):
        geofield.create_store(network / "store")
    assert list(network.iterdir()) == []


def test_a_link_does_not_hide_the_network(network: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(network)
    with pytest.raises(UnsafeStoreError, match="network file system"):
        Location.parse(tmp_path / "link" / "store").probe()


def test_the_lock_is_refused_where_the_store_was_made_elsewhere(network: Path) -> None:
    location = Location.parse(network / "store")
    with pytest.raises(UnsafeStoreError, match="network file system"), location.lock("b"):
        pytest.fail("the lock was given")
    assert list(network.iterdir()) == []


def test_the_user_may_say_that_it_is_all_right(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geofield.create_store(network / "one", storage_options={"allow_network_filesystem": True})
    monkeypatch.setenv("GEOFIELD_ALLOW_NETWORK_FS", "0")
    with pytest.raises(UnsafeStoreError, match="network file system"):
        geofield.create_store(network / "two")
    monkeypatch.setenv("GEOFIELD_ALLOW_NETWORK_FS", "1")
    with geofield.create_store(network / "two").location.lock("b"):
        assert (network / "two" / ".locks" / "b.lock").exists()


def test_a_system_that_tells_no_mounts_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "none")
    Location.parse(tmp_path / "store").probe()


def test_an_unknown_option_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="allow_network_filesystem"):
        Location.parse(tmp_path, {"allow_nfs": True})


def test_only_old_temporary_files_of_plain_objects_are_found(tmp_path: Path) -> None:
    hexes = "0123456789abcdef" * 2
    names = [
        f".{hexes}.tmp",
        f".probe-{hexes}",
        f"inbox/fields/.{hexes}.tmp",
        f"runs/2025/04/.{hexes}.tmp",
        f"rows/b/.{hexes}.tmp",
        f"inbox/fields/{hexes}.tmp",
        "inbox/fields/.hidden.tmp",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    now = dt.datetime.now(dt.UTC)
    assert temporary_files(tmp_path, now - dt.timedelta(hours=1)) == []
    found = temporary_files(tmp_path, now + dt.timedelta(hours=1))
    assert [path.relative_to(tmp_path).as_posix() for path in found] == names[:4]
    os.utime(tmp_path / names[2], (0, 0))
    assert temporary_files(tmp_path, now - dt.timedelta(hours=1)) == [tmp_path / names[2]]
    assert temporary_files(tmp_path / "absent", now) == []
