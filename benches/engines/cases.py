"""What is measured: notebooks to execute, who executes each, and how is counted that nothing was lost."""

import dataclasses
from collections.abc import Callable

from engines import inputs
from engines.engines import KERNEL, LAUNCHED, LOOP, NBCLIENT, NBCONVERT, OURS, PAPERMILL

ALL = (OURS, PAPERMILL, NBCLIENT, NBCONVERT)
WIDGETS = "application/vnd.jupyter.widget-state+json"


@dataclasses.dataclass(frozen=True)
class Case:
    """A notebook, and who executes it."""

    name: str
    title: str
    make: Callable[[], dict]
    lost: Callable[[dict], int]
    """How many lines and messages an executed notebook lacks."""
    who: tuple[str, ...] = ALL


def lacking(cell, lines):
    """How many of the lines `0` to `lines - 1` a cell lacks or has more than once."""
    return differing(inputs.streams(cell).splitlines(), [str(n) for n in range(lines)])


def differing(got, wanted):
    """How many lines are missing or were never printed; at least one where the order is another."""
    if got == wanted:
        return 0
    return max(1, len(set(wanted) - set(got)) + len(set(got) - set(wanted)))


def tiny(count):
    return inputs.cells(*(f"print({n})" for n in range(count)))


def lost_tiny(executed):
    return sum(inputs.streams(cell) != f"{n}\n" for n, cell in enumerate(executed["cells"]))


def lost_plots(executed):
    return sum(len(inputs.displays(cell, "image/png")) != 1 for cell in executed["cells"])


def lost_display(executed):
    shown = inputs.displays(executed["cells"][0], "text/plain")
    return 0 if len(shown) == 1 and len(shown[0]) == inputs.DISPLAY else 1


def lost_progress(executed):
    """Lines that are lacking, and displays and widgets that do not show the last value."""
    cell = executed["cells"][0]
    last = inputs.UPDATES - 1
    lost = differing(inputs.streams(cell).splitlines(), [f"step {n}" for n in range(inputs.UPDATES)])
    bars = inputs.displays(cell, "text/html")
    texts = [text for text in inputs.displays(cell, "text/plain") if " of " in text]
    lost += bars != [f"<progress value={last} max={inputs.UPDATES}>"]
    lost += texts != [repr(f"{last} of {inputs.UPDATES}")]
    return lost


def widget_values(executed):
    """Values of the widgets' states that stand in a notebook's metadata."""
    states = executed["metadata"].get("widgets", {}).get(WIDGETS, {}).get("state", {})
    return [state.get("state", {}).get("value") for state in states.values()]


EXECUTION = (
    Case("trivial", "one trivial cell", lambda: tiny(1), lost_tiny, (*ALL, KERNEL, LOOP)),
    Case("cells", "1,000 tiny cells", lambda: tiny(1000), lost_tiny, (*ALL, LOOP)),
    Case(
        "lines",
        "200 cells of 1,000 lines",
        lambda: inputs.cells(*["for n in range(1000):\n    print(n)"] * 200),
        lambda executed: sum(lacking(cell, 1000) for cell in executed["cells"]),
        (*ALL, LOOP),
    ),
    Case("plots", "100 plots", lambda: inputs.cells(*(inputs.PLOT.format(n=n) for n in range(100))), lost_plots),
    Case(
        "display",
        "one display of 50 MiB",
        lambda: inputs.cells(f'display({{"text/plain": "x" * {inputs.DISPLAY}}}, raw=True)'),
        lost_display,
        (*ALL, LOOP),
    ),
    Case(
        "progress",
        "10,000 progress updates",
        lambda: inputs.cells(inputs.PROGRESS),
        lost_progress,
        (OURS, PAPERMILL, NBCLIENT, LAUNCHED, NBCONVERT),
    ),
    Case(
        "flood",
        "one cell of 2,000,000 lines",
        lambda: inputs.cells(f"for n in range({inputs.LINES}):\n    print(n)"),
        lambda executed: lacking(executed["cells"][0], inputs.LINES),
        (OURS, PAPERMILL, NBCLIENT, LAUNCHED),
    ),
)
