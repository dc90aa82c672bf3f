"""How many workers a plan needs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrate.work import Append, Correct, FillLate, Rebuild, Reduce, Step

# Until a store has receipts of its own: seconds of one processor, from runs on remote imagery and on stored cubes.
_TILE_DAY_S = 2.0
_FIELD_DAY_S = 0.0005
_FIELDS_AT_ONCE = 64  # of a fill that one worker takes in hand


@dataclass(frozen=True)
class Demand:
    """What a plan comes to.

    Attributes
    ----------
    seconds
        Of work, estimated.
    width
        How many workers can be busy at once, at most.
    """

    seconds: float = 0.0
    width: int = 0


def demand(steps: Sequence[Step], boxes_at_once: int) -> Demand:
    """The work of a plan.

    The tiles of a box go through its days side by side, and so many boxes are worked on at once.
    """
    seconds: dict[str, float] = {}
    widths: dict[str, int] = {}
    for step in steps:
        seconds[step.box] = seconds.get(step.box, 0.0) + _seconds(step)
        widths[step.box] = max(widths.get(step.box, 0), _width(step))
    return Demand(sum(seconds.values()), sum(sorted(widths.values(), reverse=True)[:boxes_at_once]))


def workers_to_begin_with(
    asked: Demand, least: int, most: int, threads: int = 1, finish_s: float = 900.0, runner_does_s: float = 60.0
) -> int:
    """How many workers a cluster begins with; 0: none is worth starting, the runner does it.

    Parameters
    ----------
    asked
        What is to be done.
    least, most
        Between what the cluster adapts.
    threads
        Of one worker.
    finish_s
        In which the work should be done.
    runner_does_s
        Work that takes no longer is done before the first pod could run.
    """
    if asked.seconds <= runner_does_s or not asked.width:
        return 0
    needed = math.ceil(asked.seconds / finish_s / threads)
    useful = math.ceil(asked.width / threads)
    return min(most, max(least, 1, min(needed, useful)))


def _seconds(step: Step) -> float:
    known = getattr(step, "seconds", None)
    if known is not None:
        return float(known)
    if isinstance(step, Append | Rebuild):
        return step.tasks * _TILE_DAY_S
    if isinstance(step, Correct):
        return step.days * _TILE_DAY_S
    if isinstance(step, FillLate | Reduce):
        return step.field_days * _FIELD_DAY_S
    return 0.0


def _width(step: Step) -> int:
    if isinstance(step, Append | Rebuild):
        return max(1, step.tasks // max(1, step.days))
    if isinstance(step, FillLate | Reduce):
        return math.ceil(len(step.fields) / _FIELDS_AT_ONCE)
    return 1 if isinstance(step, Correct) else 0
