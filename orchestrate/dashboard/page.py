"""The page: days by box, late fields in work, bytes and rates, drawn with Bokeh and kept up to date."""

from __future__ import annotations

import html
import importlib
from functools import partial
from itertools import pairwise
from typing import Any

from orchestrate.dashboard.plugin import BoxWork, Work

PATH = "/geofield"
_EVERY_MS = 500
_SHOWN = 40
_DONE, _LEFT, _LATE = "#1b7837", "#d9d9d9", "#b2182b"


def mount(scheduler: Any, work: Work) -> bool:
    """Serve the page beside the pages of a scheduler's dashboard; False where it has none."""
    if not any(type(one).__name__.endswith("BokehTornado") for one in scheduler.http_application.applications):
        return False  # Dask was started without a dashboard
    core = importlib.import_module("distributed.dashboard.core")
    ours = importlib.import_module("distributed.dashboard.scheduler")
    pages = {PATH: partial(document, work), f"/individual{PATH.replace('/', '-')}": partial(document, work)}
    extra = ours.template_variables(scheduler)
    application = core.BokehApplication(pages, scheduler, prefix="", template_variables=extra)
    scheduler.http_application.add_application(application)
    application.initialize(importlib.import_module("tornado.ioloop").IOLoop.current())
    application.start()
    return True


def document(work: Work, scheduler: Any, extra: Any, doc: Any) -> None:
    """Fill a Bokeh document; Bokeh calls it for every browser that opens the page."""
    page = Page(work)
    doc.title = "geofield"
    doc.add_root(page.root)
    page.update()
    doc.add_periodic_callback(page.update, _EVERY_MS)


class Page:
    """One browser's view.

    Attributes
    ----------
    root
        What Bokeh shows.
    """

    def __init__(self, work: Work) -> None:
        models, plotting, layouts = (
            importlib.import_module(f"bokeh.{name}") for name in ("models", "plotting", "layouts")
        )
        self._work = work
        self._figures = models.Div(sizing_mode="stretch_width")
        self._boxes = models.ColumnDataSource({"box": [], "done": [], "total": [], "colour": []})
        self._table = models.Div(sizing_mode="stretch_width")
        self._rates = models.ColumnDataSource({"at": [], "days": [], "bytes": []})
        self._bars = _bars(plotting, models, self._boxes)
        self._lines = _lines(plotting, models, self._rates)
        self.root = layouts.column(
            self._figures, layouts.row(self._bars, self._lines, sizing_mode="stretch_width"), self._table,
            sizing_mode="stretch_width",
        )  # fmt: skip

    def update(self) -> None:
        """Show what holds now."""
        work = self._work
        work.sample()
        shown = _first(work.boxes)
        self._figures.text = _figures(work)
        self._bars.y_range.factors = [name for name, _ in reversed(shown)]
        self._bars.height = 120 + 22 * len(shown)
        self._boxes.data = {
            "box": [name for name, _ in shown],
            "done": [one.days for _, one in shown],
            "total": [max(one.days, one.days_total) for _, one in shown],
            "colour": [_LATE if one.failed else _DONE for _, one in shown],
        }
        self._table.text = _table(shown)
        self._bars.x_range.end = max([1, *self._boxes.data["total"]])
        pairs = list(pairwise(work.samples))
        self._rates.data = {
            "at": [1000 * later.at for _, later in pairs],
            "days": [(later.days - one.days) / (later.at - one.at) for one, later in pairs],
            "bytes": [(later.source_bytes - one.source_bytes) / 1e6 / (later.at - one.at) for one, later in pairs],
        }
        # set here: ranges that follow the data complain in the browser while there is none
        if pairs:
            self._lines.x_range.start, self._lines.x_range.end = 1000 * pairs[0][0].at, 1000 * pairs[-1][1].at
        self._lines.y_range.end = 1.1 * max([0.1, *self._rates.data["days"]])
        self._lines.extra_y_ranges["bytes"].end = 1.1 * max([0.1, *self._rates.data["bytes"]])


_STYLE = (
    ".figures{display:flex;flex-wrap:wrap;gap:4px 36px;font:16px system-ui,sans-serif;color:#1c2321;padding:10px 4px}"
    ".figures b{display:block;font-size:26px;line-height:1.2} .figures .run b{font-size:18px;line-height:31px}"
    "table{border-collapse:collapse;font:15px system-ui,sans-serif;color:#1c2321;width:100%}"
    "th,td{text-align:right;padding:4px 14px 4px 4px;border-bottom:1px solid #d5dbd6;font-variant-numeric:tabular-nums}"
    "th{color:#55605c} th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}"
)


def _first(boxes: dict[str, BoxWork]) -> list[tuple[str, BoxWork]]:
    """The boxes at work first, then those with most to do."""
    ordered = sorted(boxes.items(), key=lambda item: (not item[1].doing, item[1].days - item[1].days_total, item[0]))
    return ordered[:_SHOWN]


def _table(shown: list[tuple[str, BoxWork]]) -> str:
    headings = ("box", "at work on", "days", "late fields in work", "filled", "rows", "read", "tasks running",
                "waiting", "done", "failed")  # fmt: skip
    lines = [
        (name, one.doing or "-", f"{one.days} of {max(one.days, one.days_total)}", one.late_in_work, one.late_fields,
         f"{one.rows:,}", f"{one.source_bytes / 1e6:,.1f} MB", one.tasks.get("processing", 0),
         sum(one.tasks.get(state, 0) for state in ("waiting", "queued", "no-worker")), one.done, one.failed)
        for name, one in shown
    ]  # fmt: skip
    head = "".join(f"<th>{word}</th>" for word in headings)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in line)}</tr>" for line in lines)
    return f"<style>{_STYLE}</style><table><tr>{head}</tr>{body}</table>"


def _figures(work: Work) -> str:
    every = work.boxes.values()
    days, size, tasks = work.rates()
    done, total = sum(one.days for one in every), sum(max(one.days, one.days_total) for one in every)
    told = {
        "run": work.run or "no run yet",
        "box-days done": f"{done:,} of {total:,}",
        "box-days a minute": f"{60 * days:,.1f}",
        "read from sources": f"{sum(one.source_bytes for one in every) / 1e6:,.1f} MB",
        "MB a second": f"{size / 1e6:,.2f}",
        "late fields in work": f"{sum(one.late_in_work for one in every):,}",
        "rows written": f"{sum(one.rows for one in every):,}",
        "tasks a second": f"{tasks:,.1f}",
    }
    items = "".join(
        f'<span class="{name.partition(" ")[0]}"><b>{html.escape(value)}</b>{name}</span>'
        for name, value in told.items()
    )
    return f'<style>{_STYLE}</style><div class="figures">{items}</div>'


def _bars(plotting: Any, models: Any, source: Any) -> Any:
    made = plotting.figure(y_range=[], x_range=models.Range1d(0, 1), height=160, width=560, toolbar_location=None,
                           title="Days by box: done, and to do", x_axis_label="days")  # fmt: skip
    made.hbar(y="box", right="total", height=0.7, color=_LEFT, source=source)
    made.hbar(y="box", right="done", height=0.7, color="colour", source=source)
    made.ygrid.visible = False
    return made


def _lines(plotting: Any, models: Any, source: Any) -> Any:
    made = plotting.figure(x_axis_type="datetime", x_range=models.Range1d(0, 1), y_range=models.Range1d(0, 1),
                           height=260, title="Rate over the last half hour", toolbar_location=None,
                           y_axis_label="box-days a second", sizing_mode="stretch_width")  # fmt: skip
    made.extra_y_ranges = {"bytes": models.Range1d(0, 1)}
    made.add_layout(models.LinearAxis(y_range_name="bytes", axis_label="MB a second"), "right")
    made.line("at", "days", source=source, color=_DONE, line_width=2, legend_label="box-days a second")
    made.line("at", "bytes", source=source, color="#2166ac", line_width=2, line_dash="dashed", y_range_name="bytes",
              legend_label="MB a second")  # fmt: skip
    made.legend.location = "top_left"
    return made
