"""Notifications: what is told, that nothing is told twice, and that a notifier never fails a run."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from geofield import Store
from geofield.errors import ConfigurationError, StoreUnavailableError
from geofield.store import Location
from orchestrate import cli
from orchestrate.notify import STATE, Notifier, check_urls
from tests.support.smallstore import feature, make_store, write_fields
from tests.support.watching import Webhook, a_box, a_receipt, an_error, receiver

__all__ = ["receiver"]

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
URLS = ("json://one.example/aaaaaaaaaaaa", "json://two.example/bbbbbbbbbbbb")


class Post:
    """Takes what is sent, unless the address is away."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, str]] = []
        self.away: set[str] = set()
        self.error: Exception | None = None

    def __call__(self, urls: Sequence[str], title: str, body: str) -> bool:
        if self.error is not None:
            raise self.error
        (url,) = urls
        if url in self.away:
            return False
        self.got.append((url, title, body))
        return True

    def titles(self) -> list[str]:
        """Of what came since the last look."""
        found = [title for _, title, _ in self.got]
        self.got.clear()
        return found


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(str(tmp_path / "s"))


def notifier(post: Post, urls: Sequence[str] = URLS[:1], **changes: Any) -> Notifier:
    return Notifier("north", urls, sender=post, **changes)


def test_what_is_told(post: Post, store: Store) -> None:
    late = {"fields": 1, "field_days": 40}
    receipt = a_receipt(
        boxes={"b": a_box(late=late), "old": a_box(last_day="2026-11-10")},
        errors=[an_error(), an_error("access", None, None)],
        rejected=[{"file": "f.geojson", "reason": "f.geojson row 3: no planting date"}],
        inbox={"rows_rejected": 1},
    )
    assert notifier(post).tell(receipt, store, NOW) == 4
    assert [(title, body) for _, title, body in post.got] == [
        ("geofield, north: run failed",
         ("box b 2026-11-20: source_unavailable: what happened: source_unavailable\n"
          "run: access: what happened: access")),
        ("geofield, north: no new days", "box old: last day 2026-11-10, 11 days ago"),
        ("geofield, north: 1 input not taken", "f.geojson: f.geojson row 3: no planting date"),
        ("geofield, north: 1 late field filled", "box b: 1 field, 40 field-days"),
    ]  # fmt: skip


def test_a_good_run_is_not_told(post: Post, store: Store) -> None:
    assert notifier(post).tell(a_receipt(), store, NOW) == 0
    assert post.got == []


def test_only_the_events_asked_for(post: Post, store: Store) -> None:
    receipt = a_receipt(errors=[an_error()], boxes={"b": a_box(last_day="2026-11-01")})
    notifier(post, on=["stale"]).tell(receipt, store, NOW)
    assert post.titles() == ["geofield, north: no new days"]


def test_a_run_that_was_stopped_is_not_a_failure(post: Post, store: Store) -> None:
    notifier(post).tell(a_receipt(errors=[an_error("interrupted", None, None)]), store, NOW)
    assert post.got == []


def test_never_twice_for_the_same(post: Post, store: Store) -> None:
    def tell(**changes: Any) -> list[str]:
        # each time another process, which knows from the store only
        notifier(post).tell(a_receipt(**changes), store, NOW)
        return post.titles()

    failed = ["geofield, north: run failed"]
    assert tell(errors=[an_error(date="2026-11-20")]) == failed
    assert tell(errors=[an_error(date="2026-11-21")]) == []  # the same, a day later
    assert tell(errors=[an_error(), an_error("access")]) == failed  # another kind
    assert tell(errors=[an_error(), an_error("access")]) == []
    assert tell(errors=[an_error("access")]) == []
    assert tell(errors=[an_error(), an_error("access")]) == failed  # it was gone, and it is back
    stale = ["geofield, north: no new days"]
    assert tell(boxes={"b": a_box(last_day="2026-11-10")}) == stale
    assert tell(boxes={"b": a_box(last_day="2026-11-10")}) == []
    assert tell(boxes={"b": a_box(last_day="2026-11-11")}) == stale  # it moved, and stands still again
    late = {"b": a_box(late={"fields": 2, "field_days": 4})}
    assert tell(boxes=late, run="1") == ["geofield, north: 2 late fields filled"]
    assert tell(boxes=late, run="1") == []
    assert tell(boxes=late, run="2") == ["geofield, north: 2 late fields filled"]


def test_only_what_is_new_is_in_a_message(post: Post, store: Store) -> None:
    notifier(post).tell(a_receipt(errors=[an_error()]), store, NOW)
    notifier(post).tell(a_receipt(errors=[an_error(), an_error("access", "c")]), store, NOW)
    assert post.got[1][2] == "box c 2026-11-20: access: what happened: access"


def test_what_is_told_may_be_forgotten(post: Post, store: Store) -> None:
    for stored in (None, b"", b"[]", b'{"told": 3, "waiting": []}', b'{"told": {}, "waiting": [{}]}'):
        store.location.delete(STATE)
        if stored is not None:
            store.location.write(STATE, stored)
        notifier(post).tell(a_receipt(errors=[an_error()]), store, NOW)
        assert post.titles() == ["geofield, north: run failed"]


def test_what_was_not_taken_is_sent_again_and_only_there(post: Post, store: Store) -> None:
    post.away = {URLS[1]}
    assert notifier(post, URLS).tell(a_receipt(errors=[an_error()]), store, NOW) == 0
    assert [url for url, *_ in post.got] == [URLS[0]]
    notifier(post, URLS).tell(a_receipt(errors=[an_error()]), store, NOW)
    assert [url for url, *_ in post.got] == [URLS[0]]
    post.away.clear()
    assert notifier(post, URLS).tell(a_receipt(), store, NOW) == 1
    assert [url for url, *_ in post.got] == list(URLS)
    assert notifier(post, URLS).tell(a_receipt(), store, NOW) == 0
    assert len(post.got) == 2


def test_a_store_that_is_away(post: Post, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(Location, "write", away)
    told = notifier(post)
    for _ in range(3):
        told.tell(a_receipt(errors=[an_error()]), store, NOW)
    for _ in range(3):
        told.tell(a_receipt(errors=[an_error()]), None, NOW)
    assert len(post.got) == 1


def test_a_notifier_never_fails_a_run(post: Post, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    post.error = RuntimeError("it broke")
    assert notifier(post).tell(a_receipt(errors=[an_error()]), store, NOW) == 0
    assert "it broke" in caplog.text
    post.error = None
    assert notifier(post).tell({"errors": "nonsense", "boxes": 3}, store, NOW) == 0
    assert "notifications failed" in caplog.text
    assert notifier(post).tell(a_receipt(), store, NOW) == 1  # the one that waited


def test_messages_are_short_and_hold_no_secret(post: Post, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrFAKEfakeFAKEfake")
    post.away = {URLS[0]}
    errors = [an_error(box=f"b{number}") | {"message": "x" * 400 + " wJalrFAKEfakeFAKEfake"} for number in range(30)]
    errors[0]["message"] = "key wJalrFAKEfakeFAKEfake and AKIAIOSFODNN7EXAMPLE were refused"
    notifier(post).tell(a_receipt(errors=errors), store, NOW)
    assert b"wJalrFAKE" not in store.location.read(STATE)
    assert b"example" not in store.location.read(STATE)  # nor an address
    post.away.clear()
    notifier(post).tell(a_receipt(errors=errors), store, NOW)
    ((_, _, body),) = post.got
    lines = body.split("\n")
    assert len(lines) == 9
    assert lines[0] == "box b0 2026-11-20: source_unavailable: key *** and *** were refused"
    assert lines[-1] == "and 22 more"
    assert max(map(len, lines)) == 300


# --- by way of apprise -----------------------------------------------------------------------------------------------


def test_on_the_wire(receiver: Webhook, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    check_urls([receiver.url])
    told = Notifier("north", [receiver.url])
    receiver.status = 500
    assert told.tell(a_receipt(errors=[an_error()]), store, NOW) == 0
    assert "not taken" in caplog.text
    receiver.status = 200
    assert told.tell(a_receipt(errors=[an_error()]), store, NOW) == 1
    (got,) = receiver.got
    assert (got["title"], got["message"]) == (
        "geofield, north: run failed",
        "box b 2026-11-20: source_unavailable: what happened: source_unavailable",
    )


def test_wrong_addresses_are_refused_without_being_told() -> None:
    with pytest.raises(
        ConfigurationError, match=r"notify\.urls\.1: apprise knows no address such as nosuch://"
    ) as caught:
        check_urls(["json://127.0.0.1/x", "nosuch://token0123456789/x"])
    assert "token0123456789" not in str(caught.value)


def test_a_run_tells(
    receiver: Webhook, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEOFIELD_HOOK", receiver.url)
    store.location.write("settings.yaml", b"notify: {urls: ['${GEOFIELD_HOOK}'], events: [rejected, late]}\n")
    assert cli.main(["run", store.url, "--until", "2025-04-03"]) == 0
    files = [write_fields(tmp_path / "good.geojson", feature("A", 0, 0)),
             write_fields(tmp_path / "bad.geojson", feature("B", 90_000, 0))]  # fmt: skip
    assert cli.main(["submit", store.url, *map(str, files)]) == 0
    assert cli.main(["run", store.url, "--until", "2025-04-03"]) == 0
    assert [one["title"] for one in receiver.got] == [
        f"geofield, {store.url}: 1 input not taken",
        f"geofield, {store.url}: 1 late field filled",
    ]
    assert receiver.got[1]["message"] == "box b: 1 field, 3 field-days"
    assert "bad.geojson" in receiver.got[0]["message"]
    everything = [store.location.read(one.key) for folder in ("runs", "notify") for one in store.location.list(folder)]
    assert not any(b"hook-0123456789abcdef" in data for data in everything)
    said = capsys.readouterr()
    assert "hook-0123456789abcdef" not in said.out + said.err
    # an address that is away: the run is done all the same
    monkeypatch.setenv("GEOFIELD_HOOK", "json://127.0.0.1:1/hook")
    assert cli.main(["submit", store.url, str(write_fields(tmp_path / "c.geojson", feature("C", 50, 0)))]) == 0
    capsys.readouterr()
    assert cli.main(["run", store.url, "--until", "2025-04-03", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["boxes"]["b"]["late"]["fields"] == 1
    assert "a notification was not taken" in said.err


def test_apprise_is_loaded_only_where_somebody_is_told() -> None:
    code = "import sys, orchestrate.notify as n; n.Notifier('x', ()); sys.exit('apprise' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
