"""What the engine promises, as data: each is read off the rows of `scripts/bench notebook`."""

import dataclasses

from engines.compare import NBDIME
from engines.engines import KERNEL, LAUNCHED, NBCLIENT, NBCONVERT, PAPERMILL

WALL, CPU, CPU_ALL, MEMORY, LOST = "wall", "CPU, tool alone", "CPU, with kernel", "peak memory", "lost"
UNITS = {WALL: "s", CPU: "s", CPU_ALL: "s", MEMORY: "MB", LOST: "count"}


@dataclasses.dataclass(frozen=True)
class Promise:
    """Ours is at most `most` times a peer's median; without a peer `most` is in the measure's unit."""

    case: str
    measure: str
    most: float
    of: str | None = None

    def __str__(self):
        unit = f"x {self.of}" if self.of else f" {UNITS[self.measure]}"
        return f"{self.case}: {self.measure} at most {self.most:g}{unit}"


PROMISES = (
    Promise("trivial", WALL, 0.2, PAPERMILL),
    Promise("trivial", WALL, 1.2, KERNEL),
    Promise("cells", WALL, 0.04, PAPERMILL),
    Promise("cells", WALL, 0.6, NBCLIENT),
    Promise("cells", CPU, 0.3),
    Promise("lines", WALL, 0.2, PAPERMILL),
    Promise("lines", WALL, 0.75, NBCLIENT),
    Promise("plots", WALL, 0.85, NBCLIENT),
    Promise("display", WALL, 0.3, PAPERMILL),
    Promise("display", MEMORY, 120),
    Promise("flood", WALL, 1.0, LAUNCHED),
    Promise("progress", WALL, 1.0, LAUNCHED),
    Promise("flood", MEMORY, 48),
    Promise("progress", MEMORY, 48),
    *(Promise(case, MEMORY, 16) for case in ("trivial", "cells", "lines", "plots")),
    *(Promise(case, LOST, 0) for case in ("trivial", "cells", "lines", "plots", "display", "progress", "flood")),
    *(Promise(case, LOST, 0) for case in ("diff-edits", "diff-outputs", "diff-ids", "html-cells", "html-outputs")),
    Promise("diff-edits", WALL, 0.02, NBDIME),
    Promise("diff-outputs", WALL, 0.02, NBDIME),
    Promise("diff-ids", WALL, 1.0),
    Promise("html-cells", WALL, 0.05, NBCONVERT),
    Promise("html-outputs", WALL, 0.05, NBCONVERT),
)


def judge(rows):
    """Each promise with what was measured and whether it is held: None where there are no numbers for it."""
    by_place = {(row["case"], row["measure"]): row for row in rows}
    judged = []
    for promise in PROMISES:
        row = by_place.get((promise.case, promise.measure), {"ours": None, "peers": {}})
        ours, peer = row["ours"], row["peers"].get(promise.of)
        measured = None
        if ours and promise.of is None:
            # Of what may never happen the worst run counts, not the median.
            measured = ours["max"] if promise.measure == LOST else ours["median"]
        elif ours and peer and peer["median"]:
            measured = ours["median"] / peer["median"]
        judged.append((promise, measured, None if measured is None else measured <= promise.most))
    return judged
