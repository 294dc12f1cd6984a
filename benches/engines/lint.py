"""Lint tools over a notebook: the seconds that reading their words adds to their own, and nbQA alone beside them."""

import functools
import json
import re

from engines import inputs, measure
from engines.compare import Compare, must
from engines.engines import OURS

NBQA = "nbqa"
CELLS = 200


def make():
    """Every cell has something to say about: a name that is not used, one that is not there, a blank too many."""
    return {"nb.ipynb": inputs.cells(*(f"import os\nx_{n} = {n}\nprint( y_{n})" for n in range(CELLS)))}


def ours(place, folder, tool):
    """Seconds of the whole command (its job, environment and journal too), of the tool, and of reading its words."""
    command = [place.program, "lint", "nb.ipynb", "--executor", "shell", "--tool", tool, "--json"]
    took = measure.run(command, env=place.env, cwd=folder, limit=300)
    must(took, (0, 1), "trainyard lint")
    events = [json.loads(line) for line in took.output.splitlines() if line.startswith('{"seq"')]
    ran = next((event for event in events if event["kind"] == "tool_finished"), None)
    if ran is None:
        raise measure.MeasureError(f"trainyard lint did not say how long {tool} ran")
    found = {event["cell"] for event in events if event["kind"] == "finding"}
    more = {"the tool itself": ran["took"] / 1000, "reading its words": ran["read_us"] / 1e6}
    return OURS, took, CELLS - len(found), more


def nbqa(place, folder, tool):
    """`tool` with options that leave the file as it is: the next round finds the same."""
    took = measure.run([place.bin / "nbqa", *tool.split(), "nb.ipynb"], env=place.env, cwd=folder, limit=300)
    must(took, (0, 1), f"nbqa {tool}")
    found = set(re.findall(r"nb\.ipynb:cell_(\d+)", took.output))
    return NBQA, took, CELLS - len(found) if found else None


def both(tool, ours_name):
    return {OURS: functools.partial(ours, tool=ours_name), NBQA: functools.partial(nbqa, tool=tool)}


LINTS = (
    Compare("lint-flake8", "flake8 over 200 cells, through nbQA", make, both("flake8", "flake8")),
    Compare("lint-black", "black over 200 cells, through nbQA", make, both("black --check", "black")),
    Compare("lint-ruff", "ruff over 200 cells, through nbQA", make, both("ruff", "nbqa ruff")),
)
