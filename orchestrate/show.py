"""What the command line prints for people: tables and sentences on stdout."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrate.tables import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 160  # not a terminal: nothing is cut
_SHOWN = 10
_ROWS = 5
_OF_ROW = re.compile(r"^row \d+(, (field|box) ('[^']*'|\"[^\"]*\"))?: ")
_LEFT = frozenset(
    ("box", "what", "date", "finished", "started", "until", "is", "start", "crs", "variables", "source", "file",
     "reason", "run", "status", "last day")
)  # fmt: skip

_WHOLE = frozenset(("date", "status", "run", "until", "start", "last day"))  # not folded where there is little room


def console() -> Console:
    """Stdout, as wide as the terminal."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process with 1

    return Piped(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDE)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> FittedTable:
    """A table; numbers to the right."""
    texts = [[printable(value) for value in row] for row in rows]
    columns = [
        Column(heading, tuple(row[at] for row in texts), heading in _LEFT, heading in _WHOLE)
        for at, heading in enumerate(headings)
    ]
    return FittedTable(columns, title)


def printable(value: object) -> str:
    """Text that cannot steer the terminal; what is missing as a dash."""
    if value is None or value != value:
        return "-"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)


def size(number: float | None) -> str:
    """Bytes with a unit."""
    if number is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def duration(seconds: float | None) -> str:
    """A time a person can picture."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def many(number: int, word: str) -> str:
    """`1 day`, `2 days`, `2 boxes`."""
    if number == 1:
        return f"1 {word}"
    return f"{number:,} {word}{'es' if word.endswith('x') else 's'}"


def show_boxes(result: Mapping[str, Any]) -> None:
    """What add-box did."""
    out = console()
    if result["boxes"]:
        headings = ("box", "is", "start", "crs", "pixels", "resolution", "tiles", "variables", "source")
        rows = [
            (box["id"], "new" if box["is_new"] else "there already", box["start"], box["crs"],
             f"{box['columns']} x {box['rows']}", box["resolution"], box["tiles"], ", ".join(box["variables"]),
             box["source"])
            for box in result["boxes"]
        ]  # fmt: skip
        out.print(table(headings, rows))
    _show_refused(out, result["rejected"], result["notices"])


def show_submitted(files: Sequence[Mapping[str, Any]], waiting: int) -> None:
    """What submit did."""
    out = console()
    for one in files:
        said = "in the inbox" if one["is_new"] else "is in the inbox already, unchanged"
        out.print(f"{printable(one['path'])}: {said} as {printable(one['key'])}", soft_wrap=True)
    out.print(f"{many(waiting, 'file')} in the inbox; `geofield run` reads them.")


def show_plan(result: Mapping[str, Any]) -> None:
    """What a run would do."""
    out = console()
    names = {
        "append": "append days",
        "correct": "correct days",
        "fill_late": "fill late fields",
        "rebuild": "build a changed box anew",
        "reduce": "rewrite rows",
        "remove": "remove rows",
    }
    rows = [
        (step["box"], names[step["action"]], _span(step), step.get("days"), step.get("tasks"),
         len(step["fields"]) if "fields" in step else None, step.get("field_days", step.get("rows")),
         size(step.get("source_bytes")), size(step.get("cube_bytes")), duration(step["seconds"]))
        for step in result["steps"]
    ]  # fmt: skip
    if rows:
        headings = ("box", "what", "date", "days", "tasks", "fields", "field-days", "to read", "to write", "time")
        out.print(table(headings, rows, f"Until {result['until']}"))
        totals = result["totals"]
        time = "unknown before the first run" if totals["seconds"] is None else f"about {duration(totals['seconds'])}"
        out.print(
            f"{many(totals['days'], 'day')} to append in {many(totals['tasks'], 'task')}, "
            f"about {size(totals['source_bytes'])} to read; "
            f"{many(totals['late_field_days'], 'field-day')} from the stored cubes. Time: {time}."
        )
    elif result["begins_later"]:
        out.print(_later(result["begins_later"], result["until"]), soft_wrap=True)
    else:
        out.print(f"Nothing to do: everything until {result['until']} is there.")
    _show_imagery(out, result.get("imagery") or {})
    waiting = result["inbox"]["boxes"] + result["inbox"]["fields"]
    if waiting:
        out.print(f"{many(waiting, 'file')} in the inbox will be read first; what they hold is not in this plan.")
    _show_errors(out, result["errors"])


def _show_imagery(out: Console, imagery: Mapping[str, Mapping[str, Any]]) -> None:
    """What catalogues offer for the days to append."""
    found = {name: one for name, one in imagery.items() if "error" not in one}
    rows = [
        (name, one["items"], one["days"], size(one["source_bytes"]),
         *(f"{number:.0f} %" for number in one["cloud_cover"] or ()))
        for name, one in found.items()
    ]  # fmt: skip
    if rows:
        headings = ("box", "items", "days with imagery", "to read, at most", "least cloud", "mean", "most")
        out.print(table(headings, [(*row, *[None] * (len(headings) - len(row))) for row in rows], "Imagery on offer"))
    for name, one in imagery.items():
        if "error" in one:
            out.print(printable(f"box {name}: its catalogue could not be asked. {one['error']}"), soft_wrap=True)


def _span(step: Mapping[str, Any]) -> str | None:
    if "start" not in step:
        return None
    return f"{step['start']} to {step['end']}" if "end" in step else f"from {step['start']}"


def show_receipt(receipt: Mapping[str, Any]) -> None:
    """What a run did."""
    out = console()
    boxes = receipt["boxes"]
    worked = {name: one for name, one in boxes.items() if _total(one)}
    if worked:
        headings = ("box", "days appended", "amended", "there before", "reads", "read", "rows", "rows removed",
                    "late fields", "late field-days", "late source reads", "time")  # fmt: skip
        rows = [
            (name, one["days_appended"], one["days_amended"], one["days_present"],
             one["source_reads"], size(one["source_bytes"]),
             one["rows_written"], one["rows_removed"], one["late"]["fields"] + one["mended"]["fields"],
             one["late"]["field_days"] + one["mended"]["field_days"], one["late"]["source_reads"],
             duration(sum(one["seconds"].values())))
            for name, one in worked.items()
        ]  # fmt: skip
        out.print(table(headings, rows, f"Run {receipt['run_id']} until {receipt['until']}"))
    elif not boxes and not receipt["errors"]:
        out.print("There is no box yet: add one with `geofield add-box`.")
    elif not receipt["errors"] and (later := _begin_later(boxes, receipt["until"])):
        out.print(_later(later, receipt["until"]), soft_wrap=True)
    elif not receipt["errors"]:
        out.print(f"Nothing to do: {many(len(boxes), 'box')}, everything until {receipt['until']} is there.")
    inbox = receipt["inbox"]
    if inbox["files_accepted"] or inbox["files_rejected"]:
        out.print(
            f"Inbox: {many(inbox['files_accepted'], 'file')} accepted, {inbox['files_rejected']} rejected; "
            f"{many(inbox['rows_accepted'], 'row')} accepted, {inbox['rows_rejected']} rejected."
        )
    for name, box in receipt["boxes"].items():
        for text in box.get("incomplete", ())[:_SHOWN]:
            out.print(printable(f"box {name}: {text}"), soft_wrap=True)
    _show_refused(out, receipt["rejected"], receipt["notices"])
    _show_errors(out, receipt["errors"])


def _begin_later(boxes: Mapping[str, Mapping[str, Any]], until: str) -> dict[str, str]:
    return {name: due for name, one in boxes.items() if (due := one.get("first_due")) is not None and due > until}


def _later(boxes: Mapping[str, str], until: str) -> str:
    """That boxes have no day yet, and from when on they will."""
    listed = [f"{printable(name)} from {due} on" for name, due in list(boxes.items())[:_SHOWN]]
    rest = f", and {len(boxes) - _SHOWN:,} more" if len(boxes) > _SHOWN else ""
    begin = "begins" if len(boxes) == 1 else "begin"
    return f"Nothing to do until {until}: {many(len(boxes), 'box')} {begin} later ({', '.join(listed)}{rest})."


def _total(box: Mapping[str, Any]) -> int:
    return int(box["days_appended"] + box["days_amended"] + box["rows_written"] + box["rows_removed"])


def show_status(status: Mapping[str, Any]) -> None:
    """What a store holds."""
    out = console()
    out.print(f"Store {printable(status['store'])}")
    if status["boxes"]:
        headings = ("box", "start", "last day", "days", "acquisitions", "fields", "done", "late", "rows", "to write")
        rows = [
            (name, one["start"], one["last_day"], one["days"], one["acquisitions"], one["fields"], one["fields_done"],
             one["fields_late"], one["rows"], one["rows_missing"])
            for name, one in status["boxes"].items()
        ]  # fmt: skip
        out.print(table(headings, rows))
    elif not status["errors"]:
        out.print("There is no box yet: add one with `geofield add-box`.")
    if status["errors"]:
        names = ", ".join(printable(one["box"]) for one in status["errors"])
        out.print(
            f"{many(len(status['errors']), 'box')} cannot be read: {names}. The reasons are at the end.", soft_wrap=True
        )
    waiting = status["inbox"]["boxes"] + status["inbox"]["fields"]
    if waiting:
        out.print(f"{many(waiting, 'file')} in the inbox; `geofield run` reads them.")
    if status["rejected"]:
        files = [(one["file"], one["rejected"], one["reason"]) for one in status["rejected"]]
        out.print(table(("file", "refused", "reason"), files, "Files with refused rows, the last ones first"))
    if status["runs"]:
        runs = [
            (one["run_id"], one["until"], one["finished"] or "not finished", one["days_appended"], one["late_fields"],
             one["rows_written"], one["rows_removed"], one["retries"], len(one["errors"]))
            for one in status["runs"]
        ]  # fmt: skip
        columns = ("run", "until", "finished", "days", "late fields", "rows", "rows removed", "retries", "failures")
        out.print(table(columns, runs, "Runs, the last ones first"))
        _show_errors(out, status["runs"][0]["errors"])
    else:
        out.print("Nothing was run yet.")
    _show_errors(out, status["errors"])


def show_runs(since: str, found: Sequence[Mapping[str, Any]], days: Sequence[Mapping[str, Any]]) -> None:
    """Past runs, and the days that needed more than one attempt."""
    out = console()
    if not found:
        out.print(f"No such run since {since}.")
        return
    rows = [
        (one["run_id"], one["started"][:19], one["box"], one["outcome"], _days_of(one), one["days_appended"],
         one["days_amended"], one["rows_written"], one["rows_removed"], one["late_fields"], duration(one["seconds"]),
         ", ".join(sorted({error["kind"] for error in one["errors"]})) or None)
        for one in found
    ]  # fmt: skip
    headings = ("run", "started", "box", "status", "date", "days", "amended", "rows", "removed", "late fields", "time",
                "reason")  # fmt: skip
    out.print(table(headings, rows, f"Runs since {since}"))
    again = [one for one in days if one["attempts"] > 1 or one["failed"]]
    if again:
        tries = [
            (one["box"], one["date"], one["attempts"], one["failed"], ", ".join(one["kinds"]), one["appended_by"])
            for one in again
        ]
        out.print(table(("box", "date", "attempts", "failed", "reason", "run"), tries, "Days that failed"))
    errors = [{"box": one["box"], **error} for one in found for error in one["errors"]]
    _show_errors(out, errors[-_SHOWN:])


def _days_of(attempt: Mapping[str, Any]) -> str | None:
    first, last = attempt["first_day"], attempt["last_day"]
    return first if first == last else f"{first} to {last}"


def show_published(url: str, result: Mapping[str, Any]) -> None:
    """Which copies there are now, and what bringing them up to date wrote."""
    out = console()
    folder = printable(f"{url}/published/{result['box']}")
    if (zarr := result["zarr"]) is not None:
        written = f"{many(zarr['days_written'], 'day')} written, {size(zarr['bytes_written'])}"
        out.print(f"{folder}/cube.zarr: {many(zarr['days'], 'day')}, {written}")
    for name in ("cog", "fields"):
        if (one := result[name]) is not None:
            of = "" if one["date"] is None else f" of {one['date']}"
            state = "written" if one["is_new"] else "was up to date"
            out.print(f"{printable(url)}/{one['key']}{of}: {size(one['bytes'])}, {state}")
    for one in result["stac"] or ():
        out.print(f"{printable(url)}/{one['key']}: {'written' if one['is_new'] else 'was up to date'}")


def show_rows(frame: Any, columns: Mapping[str, str]) -> None:
    """A field's rows."""
    out = console()
    first = frame.iloc[0]
    out.print(f"Field {printable(first['field_id'])}, {many(len(frame), 'day')}")
    values = (
        tuple(f"{value:.4f}" if isinstance(value, float) and value == value else value for value in row)
        for row in frame[list(columns)].itertuples(index=False)
    )
    out.print(table(list(columns.values()), values))


def _show_refused(out: Console, rejected: Sequence[Mapping[str, Any]], notices: Sequence[Mapping[str, Any]]) -> None:
    for title, items, key in (("Not taken", rejected, "reason"), ("Mended or left out", notices, "what")):
        if not items:
            continue
        out.print(f"{title}:")
        said = _said_once(items, key)
        for text in said[:_SHOWN]:
            out.print(f"  {text}", soft_wrap=True)
        if len(said) > _SHOWN:
            out.print(f"  and {len(said) - _SHOWN} more: see the .why.json beside the file, or --json.")


def _said_once(items: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """What is said of rows, once for all rows of a file of which the same is said."""
    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in items:
        text = str(one[key]).removeprefix(f"{one['file']}: ")
        alike.setdefault((str(one["file"]), _OF_ROW.sub("", text)), []).append(one)
    return [_of_several(file, text, group, key) for (file, text), group in alike.items()]


def _of_several(file: str, text: str, group: Sequence[Mapping[str, Any]], key: str) -> str:
    if len(group) == 1:
        text = str(group[0][key]).removeprefix(f"{file}: ")
    else:
        kind = "box" if "box" in group[0] else "row"
        names = [str(one[kind]) for one in group if one[kind] is not None]
        if names:
            listed = names[:_ROWS] + ["..."] * (len(names) > _ROWS)
            text = f"{many(len(names), kind)} ({', '.join(listed)}): {text}"
    return f"{printable(file)}: {printable(text)}"


def _show_errors(out: Console, errors: Sequence[Mapping[str, Any]]) -> None:
    if not errors:
        return
    out.print("Failed:")
    for one in errors[:_SHOWN]:
        where = " ".join(printable(part) for part in (one.get("box"), one.get("date"), one.get("file")) if part)
        out.print(f"  {where or 'the run'}: {one['kind']}: {printable(one['message'])}", soft_wrap=True)
    if len(errors) > _SHOWN:
        out.print(f"  and {len(errors) - _SHOWN} more.")
