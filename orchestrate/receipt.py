"""The receipt of a run: what was done, what it cost, what failed. Stored under `runs/`, read back for estimates."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from geofield.errors import NotFoundError
from orchestrate.masking import mask_all
from orchestrate.work import InboxCounts, Rates

if TYPE_CHECKING:
    from geofield import Store

_RECENT = 10
_MONTHS_BACK = 12
_SAME_SECOND = 3


@dataclass
class Late:
    """What filling from the stored cube did and cost; `source_reads` and `box_tasks` are counted and stay 0."""

    fields: int = 0
    field_days: int = 0
    source_reads: int = 0
    box_tasks: int = 0
    cube_bytes_read: int = 0

    def add(self, report: Any) -> None:
        """Take over the counts of a report of the pipeline."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(report, name))


_COUNTS = ("days_appended", "days_amended", "source_reads", "source_bytes", "cube_objects_written", "rows_written")


@dataclass
class BoxReceipt:
    """What a run did in one box.

    Attributes
    ----------
    days_present
        Days up to the end of the run that the cube held before.
    rows_written
        All of them: of new days, late, mended.
    rows_removed
        Rows of fields that the box does not have any more.
    late
        Fields that came after the cube had days of theirs.
    mended
        The same for rows that a crash had left out.
    seconds
        Time taken by kind of work, what estimates are made of.
    incomplete
        Acquisitions that lacked a band, in words: nothing was taken from them for what needs it.
    first_due
        The earliest last day of a run for which the box has a day to append: its start and what it holds back. None:
        not known, the box was not read.
    first_day_appended, last_day
        The first of the days that this run appended; the cube's last day as far as this run knows. None: none.
    """

    days_appended: int = 0
    days_amended: int = 0
    days_present: int = 0
    source_reads: int = 0
    source_bytes: int = 0
    cube_objects_written: int = 0
    cube_bytes_read: int = 0
    rows_written: int = 0
    rows_removed: int = 0
    pixel_days: int = 0
    late: Late = field(default_factory=Late)
    mended: Late = field(default_factory=Late)
    seconds: dict[str, float] = field(default_factory=lambda: {"append": 0.0, "late": 0.0})
    incomplete: list[str] = field(default_factory=list)
    first_due: str | None = None
    first_day_appended: str | None = None
    last_day: str | None = None

    def add_append(self, report: Any) -> None:
        """Take over the counts of an append or a correction."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(report, name, 0))
        self.incomplete += getattr(report, "incomplete", ())

    def note_days(self, first: dt.date, last: dt.date, appended: int) -> None:
        """Remember that `appended` of the days `first` to `last` were appended by this run: the last ones of them."""
        self.last_day = max(self.last_day or "", last.isoformat())
        if appended and self.first_day_appended is None:
            self.first_day_appended = (last - dt.timedelta(days=appended - 1)).isoformat()

    def add_fill(self, report: Any, mended: bool) -> None:
        """Take over the counts of a fill from the cube."""
        (self.mended if mended else self.late).add(report)
        self.cube_bytes_read += report.cube_bytes_read
        self.rows_written += report.rows_written

    @property
    def did_something(self) -> bool:
        """Whether anything was written."""
        return bool(self.days_appended or self.rows_written or self.rows_removed or self.days_amended)


@dataclass
class Receipt:
    """One run.

    Attributes
    ----------
    rejected
        The first rows and files that were refused: file, row, field_id, rule, reason. All of them lie beside the file.
    errors
        box, date, kind, message.
    startup
        Seconds from the run's begin to the first task of a cluster that was made for it, by part: `plan`, `operator`,
        `pods`, `connect`. Empty where none was.
    """

    run_id: str
    version: str
    started: str
    until: str
    cluster: str
    finished: str | None = None
    startup: dict[str, float] = field(default_factory=dict)
    boxes: dict[str, BoxReceipt] = field(default_factory=dict)
    inbox: InboxCounts = field(default_factory=InboxCounts)
    retries: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    notices: list[dict[str, Any]] = field(default_factory=list)

    @property
    def did_something(self) -> bool:
        """Whether anything was written, refused, or failed."""
        counts = self.inbox
        read = counts.files_accepted or counts.files_rejected
        return bool(read or self.errors or any(box.did_something for box in self.boxes.values()))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; whatever an error said, no secret is in it."""
        value: dict[str, Any] = mask_all(asdict(self))
        return value


def write_receipt(store: Store, receipt: Receipt) -> str:
    """Store a receipt; its key."""
    started = dt.datetime.fromisoformat(receipt.started)
    key = f"runs/{started:%Y/%m}/{receipt.run_id}.json"
    store.location.write(key, json.dumps(receipt.to_dict(), indent=1).encode())
    return key


def recent_receipts(store: Store, number: int = _RECENT, now: dt.datetime | None = None) -> list[dict[str, Any]]:
    """The last receipts, newest first, as far back as a year; what is no receipt is passed over."""
    found: list[dict[str, Any]] = []
    for prefix in _months(now or dt.datetime.now(dt.UTC)):
        keys = sorted((info.key for info in store.location.list(prefix) if info.key.endswith(".json")), reverse=True)
        # ids tell the second: a few more are read, so that runs of the same second come in their order
        for key in keys[: number + _SAME_SECOND]:
            try:
                data = store.location.read(key)
            except NotFoundError:  # removed since it was listed
                continue
            try:
                value = json.loads(data)
            except ValueError:
                continue
            if isinstance(value, dict) and "run_id" in value:
                found.append(value)
        if len(found) >= number:
            break
    return sorted(found, key=lambda receipt: str(receipt.get("started")), reverse=True)[:number]


def _months(now: dt.datetime) -> Iterator[str]:
    for back in range(_MONTHS_BACK):
        month = now.year * 12 + now.month - 1 - back
        yield f"runs/{month // 12}/{month % 12 + 1:02d}"


def rates(receipts: list[dict[str, Any]]) -> Rates:
    """How long work took in past runs."""
    append_s = late_s = 0.0
    pixel_days = field_days = 0
    for receipt in receipts:
        for box in (receipt.get("boxes") or {}).values():
            seconds = box.get("seconds") or {}
            append_s += seconds.get("append", 0.0)
            late_s += seconds.get("late", 0.0)
            pixel_days += box.get("pixel_days", 0)
            field_days += sum((box.get(kind) or {}).get("field_days", 0) for kind in ("late", "mended"))
    return Rates(append_s / pixel_days if pixel_days else None, late_s / field_days if field_days else None)
