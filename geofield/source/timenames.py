"""Times in the names of files: `NDVI_{time}.tif`, `{date}/B04.tif`. Pure text, no I/O."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from geofield.errors import SourceError

_DATE = r"\d{4}-\d\d-\d\d|\d{8}"
_TIME = r"(?:\d{4}-\d\d-\d\dT\d\d[:\-]?\d\d[:\-]?\d\d|\d{8}T\d{6})(?:\.\d{1,6})?(?:Z|\+00:?00)?"
_TOKENS = {
    "time": rf"(?<!\d)(?P<time>{_TIME}|{_DATE})(?![\d.]\d)(?!T?\d)",
    "date": rf"(?<!\d)(?P<date>{_DATE})(?!\d)",
}


@dataclass(frozen=True)
class TimePattern:
    """A pattern of relative paths with the time in it.

    `{time}` stands for 20150711, 20150711T100008 or 2015-07-11T10:00:08 (or with hyphens), with or without Z and
    fractions of a second, or 2015-07-11; `{date}` for a date alone; a second one repeats the first. `*` stands for
    anything but a slash.
    """

    text: str

    def __post_init__(self) -> None:
        names = re.findall(r"\{([^{}]*)\}", self.text)
        if not names or set(names) - set(_TOKENS):
            raise SourceError(
                f"The file pattern {self.text!r} needs {{time}} or {{date}}, and nothing else in braces: it tells when "
                "a file was acquired."
            )
        if self.text.startswith("/") or ".." in self.text.split("/"):
            raise SourceError(f"The file pattern {self.text!r} has to stay below the source's root.")

    @property
    def depth(self) -> int:
        """Folders below the root, the file itself included."""
        return self.text.count("/") + 1

    def match(self, path: str) -> dt.datetime | None:
        """The UTC time that a relative path tells; None when the path is none of the pattern's."""
        found = self.compiled.fullmatch(path)
        if found is None:
            return None
        groups = found.groupdict()
        return parse_time(groups.get("time") or groups["date"])

    @property
    def compiled(self) -> re.Pattern[str]:
        """The pattern as a regular expression."""
        seen: set[str] = set()
        parts = []
        for part in re.split(r"(\{[^{}]*\}|\*)", self.text):
            name = part.strip("{}")
            if part == "*":
                parts.append("[^/]*")
            elif part.startswith("{"):
                parts.append(f"(?P={name})" if name in seen else _TOKENS[name])
                seen.add(name)
            else:
                parts.append(re.escape(part))
        return re.compile("".join(parts))


def parse_time(text: str) -> dt.datetime | None:
    """A time of a file's name, UTC; None when there is no such day or hour."""
    date, _, clock = text.partition("T")
    try:
        day = dt.datetime.strptime(date.replace("-", ""), "%Y%m%d").replace(tzinfo=dt.UTC)
        if not clock:
            return day
        digits, _, fraction = re.sub(r"(Z|\+00:?00)$", "", clock).partition(".")
        hour = dt.datetime.strptime(re.sub(r"[:\-]", "", digits), "%H%M%S")
    except ValueError:
        return None
    micro = int(fraction.ljust(6, "0")) if fraction else 0
    return day.replace(hour=hour.hour, minute=hour.minute, second=hour.second, microsecond=micro)
