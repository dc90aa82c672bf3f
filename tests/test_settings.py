"""Settings files: what holds, what is refused, and that no secret is shown."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from geofield.errors import ConfigurationError
from orchestrate import cli
from orchestrate.config import day_of_rule
from orchestrate.schedule import Schedule, parse_every
from orchestrate.settingsfile import parse_settings
from orchestrate.tenants import ConfigFile, StoreFile, Tenant, shown
from tests.support.smallstore import make_store

FULL = """
timezone: Europe/Berlin
schedule: "30 5 * * *"
retries: 5
notify: {urls: ["${HOOK}"], stale_days: 7}
tenants:
  north: {store: stores/north, workers: 1:4}
  south:
    store: s3://bucket/south
    endpoint_url: "${ENDPOINT}"
    every: 90m
    until: today-2
    look_back: 10
    again_after: 15m
    notify: {urls: ["${HOOK}"], events: [failed]}
"""
ENVIRONMENT = {"HOOK": "json://hooks.example/T00000000/verysecretpart", "ENDPOINT": "http://127.0.0.1:9000"}


def tenants(path: Path, text: str, environment: dict[str, str] | None = None, **said: object) -> dict[str, Tenant]:
    file = path / "watch.yaml"
    file.write_text(text)
    source = ConfigFile(file)
    found = source.tenants(source.text(), said, ENVIRONMENT if environment is None else environment)
    return {one.name: one for one in found}


def test_tenant_then_file_then_default(tmp_path: Path) -> None:
    found = tenants(tmp_path, FULL)
    north, south = found["north"], found["south"]
    assert north.store == str(tmp_path / "stores" / "north")
    assert north.schedule == Schedule(cron="30 5 * * *", zone="Europe/Berlin")
    assert (north.run.workers, north.run.retries, north.run.look_back, north.run.cluster) == ((1, 4), 5, 30, "threads")
    assert (north.notify.stale_days, north.notify.events) == (7, ("failed", "stale", "rejected", "late"))
    assert (north.until, north.again_after) == (None, None)
    assert south.store == "s3://bucket/south"
    assert dict(south.storage) == {"endpoint_url": "http://127.0.0.1:9000"}
    # an interval of its own takes the place of the schedule of all
    assert south.schedule == Schedule(every=dt.timedelta(minutes=90), zone="Europe/Berlin")
    assert (south.until, south.run.look_back, south.again_after) == ("today-2", 10, dt.timedelta(minutes=15))
    assert south.notify.events == ("failed",)


def test_command_line_then_environment_then_file(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"GEOFIELD_RETRIES": "0", "GEOFIELD_LOOK_BACK": "4", "GEOFIELD_EVERY": "2h"}
    south = tenants(tmp_path, FULL, environment, retries=9, every=None)["south"]
    assert (south.run.retries, south.run.look_back) == (9, 4)
    assert south.schedule.every == dt.timedelta(hours=2)
    assert tenants(tmp_path, FULL, environment)["north"].schedule.every == dt.timedelta(hours=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tenants: {a: {store: x, retires: 3}}", r"tenants\.a\.retires: there is no such setting"),
        ("tenants: {a: {store: x, retries: many}}", r"tenants\.a\.retries = 'many': Input should be a valid integer"),
        ("tenants: {a: {store: x, retries: 99}}", r"tenants\.a\.retries = 99: .*less than or equal to 20"),
        ("tenants: {a: {}}", r"tenants\.a\.store: Field required"),
        ("tenants: {a/b: {store: x}}", r"tenants.*'a/b' is no name of a tenant"),
        ("schedule: 61 * * * *", r"schedule = '61 \* \* \* \*': .*no cron expression: Bad minute"),
        ("schedule: 0 0 30 2 *", r"schedule = .*no cron expression.*every day\.$"),
        ("timezone: Mars/Olympus", r"timezone = 'Mars/Olympus': There is no time zone"),
        ("every: soon", r"every = 'soon': An interval is written"),
        ("every: 1h\nschedule: 0 6 * * *", "schedule and every are both given"),
        ("until: someday", r"until = 'someday': .*write YYYY-MM-DD, today, yesterday or today-3"),
        ("cluster: cloud", r"cluster = 'cloud': --cluster is threads, local"),
        ("workers: 5:2", r"workers = '5:2': --workers has to be at least 1"),
        ("notify: {events: [failed, sad]}", r"notify\.events: 'sad' is none of failed"),
        ("notify: {stale_days: 0}", r"notify\.stale_days = 0"),
        ("notify: {urls: ['${NOWHERE}']}", r"notify\.urls\.0: the environment has no variable NOWHERE"),
        ("a: [1", r"watch\.yaml is not YAML \(line 1, column"),
        ("- 1", r"watch\.yaml has to be a mapping"),
        ("{}", r"tenants: there is none"),
        (("a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
         "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n"
         "e: [*d, *d, *d, *d, *d, *d, *d]"), "more than 20,000 values"),
    ],
)  # fmt: skip
def test_wrong_settings_name_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        tenants(tmp_path, text)


def test_wrong_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"GEOFIELD_RETRIES = 'x'"):
        tenants(tmp_path, FULL, ENVIRONMENT | {"GEOFIELD_RETRIES": "x"})
    with pytest.raises(ConfigurationError, match="GEOFIELD_RETRIES"):
        tenants(tmp_path, FULL, ENVIRONMENT | {"GEOFIELD_RETRIES": "99"})


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml cannot be read"):
        ConfigFile(tmp_path / "none.yaml").text()


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_no_secret_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    tenants(tmp_path, FULL)
    for words in (["--json"], []):
        assert cli.main(["config", "show", "--config", str(tmp_path / "watch.yaml"), *words]) == 0
        out = capsys.readouterr().out
        assert "json://***" in out
        assert not any(word in out for word in ("verysecretpart", "hooks.example", "T00000000"))
    assert "30 5 * * * Europe/Berlin" in out


def test_no_secret_in_complaints(tmp_path: Path) -> None:
    secret = "slack://TokenA0123/TokenB0123/topsecrettoken"
    for text in (
        f"notify: {{urls: ['{secret}', 3]}}",
        f"notify: {{urls: {{a: '{secret}'}}}}",
        f"notify: {{urls: ['{secret}'",
        f"notify: {{urls: '{secret}', stale_days: x}}",
    ):
        with pytest.raises(ConfigurationError) as caught:
            tenants(tmp_path, text)
        assert "topsecrettoken" not in str(caught.value)
        assert "topsecrettoken" not in repr(caught.value.__cause__ or "").replace(str(caught.value.__cause__), "")


def test_repr_of_a_tenant_holds_no_secret(tmp_path: Path) -> None:
    (north, *_) = tenants(tmp_path, FULL).values()
    assert "verysecretpart" not in repr(north)
    assert "verysecretpart" not in json.dumps(shown(north))


# --- in a store ------------------------------------------------------------------------------------------------------


def test_settings_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "s"))
    source = StoreFile(store.url)
    assert source.text() is None
    (tenant,) = source.tenants(None, {}, {})
    assert (tenant.store, tenant.schedule.every, tenant.until) == (store.url, dt.timedelta(hours=1), None)
    store.location.write("settings.yaml", b"retries: 7\nuntil: 2025-04-03\nnotify: {urls: ['${GEOFIELD_HOOK}']}\n")
    (tenant,) = source.tenants(source.text(), {}, {"GEOFIELD_HOOK": "json://a.example/secretpath01"})
    assert (tenant.run.retries, tenant.until) == (7, "2025-04-03")
    assert [one.get_secret_value() for one in tenant.notify.urls] == ["json://a.example/secretpath01"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster: '${AWS_SECRET_ACCESS_KEY}'", r"cluster: the environment has no variable AWS_SECRET_ACCESS_KEY"),
        (
            "notify: {urls: ['json://evil.example/${GEOFIELD_HOOK}']}",
            r"notify\.urls\.0: in a store an address is a ref",
        ),
        ("notify: {urls: json://evil.example}", r"notify\.urls\.0: in a store"),
        ("tenants: {a: {store: /etc}}", "tenants: settings in a store are for that store"),
    ],
)
def test_what_a_store_may_not_say(text: str, said: str) -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "never/to/be/sent0", "GEOFIELD_HOOK": "x"}
    source = StoreFile("unused")
    with pytest.raises(ConfigurationError, match=said):
        source.tenants(text, {}, environment)


def test_a_run_takes_the_settings_of_its_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(str(tmp_path / "s"))
    store.location.write("settings.yaml", b"until: 2025-04-02\n")
    assert cli.main(["run", store.url, "--json"]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["until"], receipt["boxes"]["b"]["last_day"]) == ("2025-04-02", "2025-04-02")
    assert receipt["boxes"]["b"]["first_day_appended"] == "2025-04-01"
    assert cli.main(["run", store.url, "--json", "--until", "2025-04-03"]) == 0
    box = json.loads(capsys.readouterr().out)["boxes"]["b"]
    assert (box["days_appended"], box["first_day_appended"], box["last_day"]) == (1, "2025-04-03", "2025-04-03")
    store.location.write("settings.yaml", b"untill: 2025-04-02\n")
    assert cli.main(["run", store.url]) == 2
    assert "untill: there is no such setting" in capsys.readouterr().err


# --- schedules -------------------------------------------------------------------------------------------------------


def fires(schedule: Schedule, start: str, number: int) -> list[str]:
    moment, found = dt.datetime.fromisoformat(start), []
    for _ in range(number):
        moment = schedule.after(moment)
        found.append(moment.isoformat(timespec="minutes").removesuffix("+00:00"))
    return found


def test_schedule_in_a_time_zone() -> None:
    # six in the morning in Kolkata is 00:30 UTC, all the year
    assert fires(Schedule(cron="0 6 * * *", zone="Asia/Kolkata"), "2026-06-01T00:00+00:00", 2) == [
        "2026-06-01T00:30", "2026-06-02T00:30",
    ]  # fmt: skip


def test_schedule_in_the_hour_that_spring_leaves_out() -> None:
    # Berlin, 29 March 2026: after 01:59 (UTC+1) comes 03:00 (UTC+2)
    daily = Schedule(cron="30 2 * * *", zone="Europe/Berlin")
    assert fires(daily, "2026-03-27T12:00+00:00", 3) == ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]


def test_schedule_in_the_hour_that_comes_twice_in_autumn() -> None:
    # Berlin, 25 October 2026: after 02:59 (UTC+2) comes 02:00 (UTC+1)
    daily = Schedule(cron="30 2 * * *", zone="Europe/Berlin")
    assert fires(daily, "2026-10-24T12:00+00:00", 2) == ["2026-10-25T00:30", "2026-10-26T01:30"]
    hourly = Schedule(cron="30 * * * *", zone="Europe/Berlin")
    assert fires(hourly, "2026-10-24T23:00+00:00", 3) == ["2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T01:30"]


def test_interval() -> None:
    assert fires(Schedule(every=parse_every("1h30m")), "2026-01-01T00:00+00:00", 2) == [
        "2026-01-01T01:30", "2026-01-01T03:00",
    ]  # fmt: skip
    assert parse_every("2d") == dt.timedelta(days=2)
    with pytest.raises(ConfigurationError, match="at least one second"):
        Schedule(every=parse_every("0s"))
    with pytest.raises(ConfigurationError, match="give one of them"):
        Schedule()


def test_rule_for_the_last_day() -> None:
    today = dt.date(2026, 3, 1)
    assert [str(day_of_rule(rule, today)) for rule in ("today", "yesterday", "today-3", "2026-01-05")] == [
        "2026-03-01", "2026-02-28", "2026-02-26", "2026-01-05",
    ]  # fmt: skip


def test_every_setting_has_a_place_in_the_docs() -> None:
    docs = (Path(__file__).parent.parent / "docs" / "watch.md").read_text()
    held = parse_settings("", "x", {})
    names = [*type(held).model_fields, *type(held.notify or held).model_fields]
    assert [name for name in names if f"`{name}`" not in docs] == []
