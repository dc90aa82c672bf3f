"""Telling people what they have to know: a failed run, a box that stands still, refused inputs, late fields filled.

What was told already is remembered in the store under `notify/`; where that is lost, something may be told twice.
A message that could not be sent is tried again after the next run. Nothing here makes a run fail.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from geofield.errors import ConfigurationError, GeofieldError
from orchestrate.masking import mask, mask_all

if TYPE_CHECKING:
    from geofield import Store

KINDS = ("failed", "stale", "rejected", "late")
STATE = "notify/state.json"

_LINES = 8
_LONGEST = 300  # characters of a line
_WAITING = 20  # messages kept for another try
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One thing worth telling. Nothing is told twice under the same key."""

    kind: str
    key: str
    line: str


@dataclass(frozen=True)
class Message:
    """What is sent: the events of one kind.

    Attributes
    ----------
    missing
        Marks of the addresses that it has not reached.
    """

    kind: str
    title: str
    body: str
    keys: tuple[str, ...]
    missing: tuple[str, ...] = ()


class Sender(Protocol):
    """What carries a message; True when it arrived."""

    def __call__(self, urls: Sequence[str], title: str, body: str) -> bool:
        """Send."""


def send(urls: Sequence[str], title: str, body: str) -> bool:
    """Send to every address by way of apprise; True when each of them took it."""
    import apprise

    wire = apprise.Apprise()
    for url in urls:
        wire.add(url)
    return bool(wire.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT))


def check_urls(urls: Sequence[str]) -> None:
    """`ConfigurationError` for an address that apprise does not know; the address itself is not told."""
    if not urls:
        return
    import apprise

    for number, url in enumerate(urls):
        if apprise.Apprise.instantiate(url, suppress_exceptions=True) is None:
            raise ConfigurationError(
                f"notify.urls.{number}: apprise knows no address such as {url.partition('://')[0][:12]}://...; "
                "its documentation has the form for each service."
            )


@dataclass
class State:
    """What was told, by key, and when; and what could not be sent."""

    told: dict[str, str] = field(default_factory=dict)
    waiting: list[Message] = field(default_factory=list)


class Notifier:
    """Tells of one store.

    Parameters
    ----------
    name
        What the store is called in a message.
    urls
        Addresses as apprise takes them.
    on
        Of what is told.
    stale_days
        A box whose last day lies further back is stale.
    sender
        What carries a message.
    """

    def __init__(
        self, name: str, urls: Sequence[str], on: Sequence[str] = KINDS, stale_days: int = 3, sender: Sender = send
    ) -> None:
        self.name, self.on, self.stale_days, self._send = name, tuple(on), stale_days, sender
        self.urls = {_mark(url): url for url in urls}
        self._unsaved: State | None = None  # where the store cannot be written

    def tell(self, receipt: Mapping[str, Any], store: Store | None, now: dt.datetime) -> int:
        """Tell what a receipt gives reason to; the number of messages that arrived. Raises nothing."""
        if not self.urls:
            return 0
        try:
            return self._tell(receipt, store, now)
        except Exception as error:  # whatever a service or its library does, the run is done and accounted for
            _LOG.warning("notifications failed: %s: %s", type(error).__name__, error)
            return 0

    def _tell(self, receipt: Mapping[str, Any], store: Store | None, now: dt.datetime) -> int:
        state = self._unsaved or _read(store) or State()
        _forget_what_is_over(state, receipt)
        known = {*state.told, *(key for one in state.waiting for key in one.keys)}
        found = [one for one in events(receipt, self.stale_days, now) if one.kind in self.on and one.key not in known]
        arrived, waiting = 0, []
        for message in (*state.waiting, *self._messages(found, receipt)):
            missing = tuple(mark for mark in message.missing if mark in self.urls and not self._sent(message, mark))
            state.told |= dict.fromkeys(message.keys, now.isoformat(timespec="seconds"))
            if missing:
                waiting.append(replace(message, missing=missing))
            else:
                arrived += 1
        state.waiting = waiting[-_WAITING:]
        self._unsaved = None if _write(store, state) else state
        return arrived

    def _messages(self, found: Sequence[Event], receipt: Mapping[str, Any]) -> Iterator[Message]:
        for kind in KINDS:
            of_kind = [one for one in found if one.kind == kind]
            if of_kind:
                title = f"geofield, {self.name}: {_title(kind, len(of_kind), receipt)}"
                keys = tuple(sorted({one.key for one in of_kind}))
                yield Message(kind, title, _body([one.line for one in of_kind]), keys, tuple(self.urls))

    def _sent(self, message: Message, mark: str) -> bool:
        """Whether one address took it: each by itself, so that none is told twice because another one was away."""
        try:
            done = self._send([self.urls[mark]], mask(message.title), mask(message.body))
        except Exception as error:
            _LOG.warning("a notification was not sent: %s: %s", type(error).__name__, error, extra={"of": message.kind})
            return False
        if not done:
            _LOG.warning("a notification was not taken; tried again after the next run", extra={"of": message.kind})
        return done


def _mark(url: str) -> str:
    """A name for an address that says nothing about it."""
    return hashlib.blake2b(url.encode(), digest_size=4).hexdigest()


# --- what is worth telling -------------------------------------------------------------------------------------------


def events(receipt: Mapping[str, Any], stale_days: int, now: dt.datetime) -> Iterator[Event]:
    """What a receipt gives reason to tell, told already or not."""
    run = str(receipt.get("run_id") or "")
    for error in receipt.get("errors") or []:
        if error.get("kind") != "interrupted":
            yield Event("failed", _failure(error), f"{_where(error)}: {error['kind']}: {error['message']}")
    today = now.astimezone(dt.UTC).date()
    for box, one in (receipt.get("boxes") or {}).items():
        last = one.get("last_day")
        behind = 0 if last is None else (today - dt.date.fromisoformat(last)).days
        if behind > stale_days:
            yield Event("stale", f"stale/{box}/{last}", f"box {box}: last day {last}, {behind} days ago")
    for refused in receipt.get("rejected") or []:
        yield Event("rejected", f"rejected/{run}", f"{refused.get('file')}: {refused.get('reason')}")
    for box, one in (receipt.get("boxes") or {}).items():
        late = one.get("late") or {}
        if late.get("fields"):
            said = f"box {box}: {_many(late['fields'], 'field')}, {_many(late['field_days'], 'field-day')}"
            yield Event("late", f"late/{run}", said)


def _title(kind: str, number: int, receipt: Mapping[str, Any]) -> str:
    if kind == "failed":
        return "run failed"
    if kind == "stale":
        return "no new days"
    if kind == "rejected":
        rows = int((receipt.get("inbox") or {}).get("rows_rejected", 0))  # a receipt lists the first ones only
        return f"{_many(max(number, rows), 'input')} not taken"
    fields = sum((one.get("late") or {}).get("fields", 0) for one in (receipt.get("boxes") or {}).values())
    return f"{_many(fields, 'late field')} filled"


def _failure(error: Mapping[str, Any]) -> str:
    # without the day: a box that fails in the same way every day is the same thing
    return f"failed/{error.get('box') or ''}/{error.get('kind')}"


def _where(error: Mapping[str, Any]) -> str:
    box, date = error.get("box"), error.get("date")
    return " ".join(part for part in (f"box {box}" if box else "run", date) if part)


def _body(lines: Sequence[str]) -> str:
    shown = [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..." for line in lines[:_LINES]]
    more = len(lines) - len(shown)
    return "\n".join([*shown, *([f"and {more} more"] if more else [])])


def _many(number: int, word: str) -> str:
    return f"1 {word}" if number == 1 else f"{number} {word}s"


# --- what was told ---------------------------------------------------------------------------------------------------


def _forget_what_is_over(state: State, receipt: Mapping[str, Any]) -> None:
    """A failure that is over is told again when it comes back; what belongs to a past run never comes back."""
    still = {_failure(one) for one in receipt.get("errors") or []}
    boxes, run = receipt.get("boxes") or {}, str(receipt.get("run_id") or "")
    for key in list(state.told):
        kind, _, rest = key.partition("/")
        first, _, second = rest.partition("/")
        if kind == "failed":
            is_over = key not in still and (not first or first in boxes)
        elif kind == "stale":
            is_over = (boxes.get(first) or {}).get("last_day") not in (None, second)
        else:
            is_over = rest != run
        if is_over:
            del state.told[key]


def _read(store: Store | None) -> State | None:
    if store is None:
        return None
    try:
        value = json.loads(store.location.read(STATE))
        told = {str(key): str(when) for key, when in value["told"].items()}
        waiting = [
            Message(**{**one, "keys": tuple(one["keys"]), "missing": tuple(one["missing"])}) for one in value["waiting"]
        ]
    except (GeofieldError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return State(told, waiting)


def _write(store: Store | None, state: State) -> bool:
    if store is None:
        return False
    try:
        store.location.write(STATE, json.dumps(mask_all(asdict(state)), indent=1).encode())
    except (GeofieldError, OSError) as error:
        _LOG.warning("what was told could not be noted in the store: %s", error)
        return False
    return True
