"""Notebooks compared and shown: ours beside nbdime and nbconvert, with a look at whether both found the same."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

from engines import inputs, measure
from engines.engines import NBCONVERT, OURS, read_json

NBDIME, STOPPED = "nbdime", "nbdime, stopped"
# nbdime does not come to an end on some inputs; it is stopped then, and counts as that much.
PATIENCE = 60.0
CELLS = 1000
GONE = (777, 333)
# Outputs of 5 MB in all.
OUTPUTS, OUTPUT = 500, 10_000


@dataclasses.dataclass(frozen=True)
class Compare:
    """Files made once, and what each contender makes of them: its name, what it took, how much is wrong or missing (None:
    that cannot be told), and further measures in seconds."""

    name: str
    title: str
    make: Callable[[], dict]
    """File names and notebooks."""
    run: dict[str, Callable]


def body(index, edit=""):
    return "\n".join([f"marker_{index} = {index}", f"value = f({index}){edit}", "", f"print(value, {index} * 2)"])


def edited():
    """1,000 small cells; twenty edited, three new, two gone."""
    before = [inputs.code(body(n), n) for n in range(CELLS)]
    after = [inputs.code(body(n, " + 1" if n % 50 == 0 else ""), n) for n in range(CELLS)]
    for place in GONE:
        del after[place]
    for place in (900, 500, 100):
        after.insert(place, inputs.code(f"# new\nnew_{place} = {place}", f"new-{place}"))
    return {"before.ipynb": inputs.notebook(before), "after.ipynb": inputs.notebook(after)}


def with_outputs(word):
    """Every output is another one for another word."""

    def said(index):
        text = [f"{word} {index} {line} {'x' * 78}\n" for line in range(OUTPUT // 90)]
        return {"name": "stdout", "output_type": "stream", "text": text}

    return inputs.notebook(inputs.code(body(n), n, [said(n)]) for n in range(OUTPUTS))


def other_ids():
    """Ten lines a cell, each cell edited, and no id that is the same."""

    def cell(side, index):
        lines = [f"x_{index}_{line} = compute({index}, {line})" for line in range(10)]
        lines[index % 10] += f"  # {side}"
        return inputs.code("\n".join(lines), f"{side}-{index}")

    sides = ("before", "after")
    return {f"{side}.ipynb": inputs.notebook(cell(side, n) for n in range(CELLS)) for side in sides}


def found_by_us(document):
    """Earlier cells that are not as they were, and how many later ones have no counterpart."""
    (notebook,) = document["notebooks"]
    if notebook["more_cells"]:
        raise measure.MeasureError(f"trainyard diff left {notebook['more_cells']} cells out of its JSON")
    touched = {
        cell["before"] - 1 for cell in notebook["cells"] if cell["change"] in ("changed", "moved_and_changed", "removed")
    }
    return touched, sum(cell["change"] == "added" for cell in notebook["cells"])


def found_by_nbdime(document):
    """The same of nbdime's diff: patches and removals by the earlier index, additions as ranges."""
    steps = next((step["diff"] for step in document if step.get("key") == "cells"), [])
    touched, added = set(), 0
    for step in steps:
        if step["op"] == "patch":
            touched.add(step["key"])
        elif step["op"] == "removerange":
            touched.update(range(step["key"], step["key"] + step["length"]))
        elif step["op"] == "addrange":
            added += len(step["valuelist"])
    return touched, added


def differing(found, expected):
    """How many cells were told wrong."""
    return len(found[0] ^ expected[0]) + abs(found[1] - expected[1])


def must(took, codes, what):
    if took.code not in codes:
        lines = took.output.strip().splitlines() or ["nothing was said"]
        said = next((line for line in lines if line.lower().startswith("error")), lines[-1])
        raise measure.MeasureError(f"{what} failed (exit code {took.code}): {said}")


def our_diff(place, folder, expected, outputs=False):
    command = [place.program, "diff", "--format", "json", "-o", "diff.json", *(["--outputs"] if outputs else [])]
    took = measure.run([*command, "before.ipynb", "after.ipynb"], env=place.env, cwd=folder)
    must(took, (0, 1), "trainyard diff")
    return OURS, took, differing(found_by_us(read_json(folder / "diff.json")), expected)


def nbdiff(place, folder, expected):
    command = [place.bin / "nbdiff", "--out", "nbdiff.json", "before.ipynb", "after.ipynb"]
    took = measure.run(command, env=place.env, cwd=folder, limit=PATIENCE)
    if took.timed_out:
        return STOPPED, took, None
    must(took, (0,), "nbdiff")
    return NBDIME, took, differing(found_by_nbdime(json.loads((folder / "nbdiff.json").read_text())), expected)


def missing(folder, cells):
    """How many cells do not stand on the page."""
    page = pathlib.Path(folder, "page.html").read_text(errors="replace")
    return sum(f"marker_{n}" not in page for n in cells)


def our_html(place, folder, cells):
    command = [place.program, "render", "--format", "html", "-o", "page.html", "after.ipynb"]
    took = measure.run(command, env=place.env, cwd=folder)
    must(took, (0,), "trainyard render")
    return OURS, took, missing(folder, cells)


def nbconvert_html(place, folder, cells):
    command = [place.bin / "jupyter", "nbconvert", "--to", "html", "--output", "page", "after.ipynb"]
    took = measure.run(command, env=place.env, cwd=folder)
    must(took, (0,), "nbconvert")
    return NBCONVERT, took, missing(folder, cells)


def diffs(expected, **ours):
    return {
        OURS: functools.partial(our_diff, expected=expected, **ours),
        NBDIME: functools.partial(nbdiff, expected=expected),
    }


def pages(cells):
    return {OURS: functools.partial(our_html, cells=cells), NBCONVERT: functools.partial(nbconvert_html, cells=cells)}


def made_with_outputs():
    return {"before.ipynb": with_outputs("before"), "after.ipynb": with_outputs("after")}


COMPARISONS = (
    Compare(
        "diff-edits",
        "two versions of 1,000 cells, 20 edited, 3 new, 2 gone",
        edited,
        diffs(({*range(0, CELLS, 50), *GONE}, 3)),
    ),
    Compare(
        "diff-outputs",
        "two versions with 5 MB of outputs, all different",
        made_with_outputs,
        diffs((set(range(OUTPUTS)), 0), outputs=True),
    ),
    Compare(
        "diff-ids",
        "1,000 cells of ten lines, all edited, all ids different",
        other_ids,
        diffs((set(range(CELLS)), 0)),
    ),
    Compare("html-cells", "HTML of 1,000 cells", edited, pages([n for n in range(CELLS) if n not in GONE])),
    Compare("html-outputs", "HTML of 5 MB of outputs", made_with_outputs, pages(range(OUTPUTS))),
)
