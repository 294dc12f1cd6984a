"""Behaviours of an engine: for each a small notebook, and how is told from what was left what the engine did."""

import dataclasses
import json
import re
from collections.abc import Callable

from engines import cases, inputs
from engines.engines import NBCLIENT, OURS, PAPERMILL
from engines.inputs import cells, code, notebook
from engines.seen import Seen, count, saved

LINES = 100_000
UPDATES = 10_000
TIMEOUT = {
    OURS: {"limits": {"cell_timeout": 2000}},
    NBCLIENT: ["--timeout=2"],
    PAPERMILL: ["--execution-timeout", "2"],
}


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """A notebook (a text: the file as it is), and what is looked at."""

    section: str
    name: str
    title: str
    notebook: dict | str
    look: Callable[[Seen], str]
    options: dict = dataclasses.field(default_factory=dict)
    limit: float = 120.0
    stall: float | None = None
    """Seconds that the tool stands still in the middle."""


@saved
def merged(seen):
    streams = [out for out in seen.cell(0)["outputs"] if out["output_type"] == "stream"]
    whole = "text whole" if seen.text(0) == "".join(f"{n}\n" for n in range(5)) else "text not whole"
    return f"{count(len(streams), 'stream output')}, {whole}"


def shows(index, mime="text/plain"):
    """What a cell shows of a MIME type in the end."""

    @saved
    def look(seen):
        shown = [text.strip("'") for text in inputs.displays(seen.cell(index), mime)]
        return f"shows {', '.join(shown)}" if shown else "shows nothing"

    return look


def prints(*indexes):
    """What cells print in the end, and how it ended where it did not end well."""

    @saved
    def look(seen):
        said = "; ".join(" ".join(seen.text(index).split()) or "nothing" for index in indexes)
        return f"prints {said}" + ("" if seen.well else f" ({seen.ended()})")

    return look


@saved
def after_error(seen):
    """A first cell that raises and a second that prints."""
    names = [error["ename"] for error in seen.errors(0)]
    error = f"{names[0]} kept" if names else "no error kept"
    went_on = "goes on" if "after" in seen.text(1) else "stops"
    return f"{seen.ended()}, {error}, {went_on}"


@saved
def died(seen):
    before = "text before it kept" if "before" in seen.text(1) else "text before it lost"
    return f"{seen.ended()}, {before}, statuses: {', '.join(seen.status(n) for n in range(3))}"


def noticed(seen):
    """How soon after the kernel's death the tool had ended, in steps that a busy machine does not move."""
    seconds = seen.ran.after_mark
    bound = next((bound for bound in (1, 3, 10, 30) if seconds <= bound), None)
    return f"over within {bound} s" if bound else "not within 30 s"


@saved
def traceback(seen):
    errors = seen.errors(0)
    kept = "its traceback kept" if any("sleep" in line for e in errors for line in e["traceback"]) else "no traceback kept"
    before = "text before kept" if "before" in seen.text(0) else "text before lost"
    return f"{seen.ended()}, {kept}, {before}, status: {seen.status(0)}"


def reason(*needed):
    """Whether the words name what matters: regular expressions."""

    def look(seen):
        named = all(re.search(word, seen.words) for word in needed)
        shown = "a Python traceback" if "Traceback (most recent call last)" in seen.ran.took.output else None
        parts = [seen.ended(), "says " + ("so" if named else "nothing of it")] + ([shown] if shown and not named else [])
        return ", ".join(parts)

    return look


@saved
def late(seen):
    where = [
        name for name, index in (("the cell that began it", 0), ("the cell that ran then", 1)) if "late" in seen.text(index)
    ]
    return f"in {' and '.join(where)}" if where else "lost"


@saved
def widget(seen):
    values = cases.widget_values(seen.ran.executed)
    return f"state kept, value {values[0]}" if values else "no state kept"


@saved
def all_lines(seen):
    lost = cases.lacking(seen.cell(0), LINES)
    return "all there, in order" if lost == 0 else "lines lost"


@saved
def all_updates(seen):
    """Which messages are lost is chance: that some are is all that is said."""
    lines = inputs.streams(seen.cell(0)).splitlines()
    shown = inputs.displays(seen.cell(0), "text/plain")
    whole = lines == [f"step {n}" for n in range(UPDATES)] and shown == [repr(str(UPDATES - 1))]
    return "all lines, last value shown" if whole else "messages lost"


def exits(source):
    """A cell that leaves, and one after it."""
    return cells(f"import sys\n{source}", "print('after')")


@saved
def large(seen):
    shown = inputs.displays(seen.cell(0), "text/plain")
    whole = len(shown) == 1 and len(shown[0]) == 20 << 20
    return "kept whole" if whole else "cut or lost"


@saved
def colours(seen):
    lines = "".join(line for error in seen.errors(0) for line in error["traceback"])
    return "kept" if "\x1b[" in lines else "lost"


def left_running(seen):
    return {None: "it was not started", True: "outlives the run", False: "ended with the run"}[seen.ran.left_running]


@saved
def left(seen):
    return f"{seen.ended()}, {'goes on' if 'after' in seen.text(1) else 'the rest does not run'}"


@saved
def exit_says(seen):
    """The exception of a cell that leaves, and IPython's advice on how to leave."""
    names = [error["ename"] for error in seen.errors(0)] or ["no exception"]
    advice = "IPython's warning" if "To exit" in inputs.streams(seen.cell(0), "stderr") else "no warning"
    return f"{', '.join(names)} and {advice}"


@saved
def version(seen):
    executed = seen.ran.executed
    ids = sum("id" in cell for cell in executed["cells"])
    minor = f"{executed['nbformat']}.{executed['nbformat_minor']}"
    return f"{seen.ended()}, written as {minor}, {'with ids' if ids == len(executed['cells']) else 'without ids'}"


@saved
def kept_ids(seen):
    found = [cell.get("id") for cell in seen.ran.executed["cells"]]
    return "kept" if found == ["first", "second-one"] else "changed"


@saved
def repaired(seen):
    found = [cell.get("id") for cell in seen.ran.executed["cells"]]
    state = "made unique" if len(set(found)) == len(found) else "left equal"
    return f"{seen.ended()}, {state}"


@saved
def unknown(seen):
    document = seen.ran.executed
    cell = document["cells"][0]
    places = {"notebook": document.get("novelty"), "cell": cell.get("novelty"), "metadata": cell["metadata"].get("novelty")}
    lost = [place for place, value in places.items() if value != {"b": 1, "a": [1.5, None]}]
    return "all kept" if not lost else f"lost in {', '.join(lost)}"


@saved
def parameter(seen):
    said = [inputs.streams(cell).strip() for cell in seen.ran.executed["cells"] if cell["cell_type"] == "code"]
    tags = [tag for cell in seen.ran.executed["cells"] for tag in cell["metadata"].get("tags", ())]
    injected = "injected" if "injected-parameters" in tags else "not injected"
    return f"{injected}, prints {said[-1]}"


@saved
def language(seen):
    info = seen.ran.executed["metadata"].get("language_info", {})
    return "version and file extension kept" if {"version", "file_extension"} <= info.keys() else "not kept"


MARK = """\
import pathlib, time
_ = (pathlib.Path.home() / "mark").write_text(str(time.time()))"""
THREAD = """\
import threading, time
def speak():
    time.sleep(0.5)
    print("late", flush=True)
threading.Thread(target=speak).start()"""
CHILD = """\
import pathlib, subprocess
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
_ = (pathlib.Path.home() / "child").write_text(str(child.pid))"""
WIDGET = """\
from comm import create_comm
model = {"_model_name": "IntSliderModel", "_model_module": "@jupyter-widgets/controls", "_model_module_version": "2.0.0"}
slider = create_comm(target_name="jupyter.widget", data={"state": {**model, "value": 1}}, metadata={"version": "2.1.0"})
slider.send({"method": "update", "state": {"value": 7}})"""
UPDATE = f"""\
{MARK}
handle = display("0", display_id=True)
for n in range({UPDATES}):
    print(f"step {{n}}", flush=True)
    handle.update(str(n))"""
NESTED = """\
import asyncio
async def one():
    await asyncio.sleep(0)
    return 1
import nest_asyncio2
nest_asyncio2.apply()
print(asyncio.get_event_loop().run_until_complete(one()), await one())"""
OLD = {
    "nbformat": 3,
    "nbformat_minor": 0,
    "metadata": {"name": ""},
    "worksheets": [
        {"cells": [{"cell_type": "code", "language": "python", "input": ["print(1)"], "outputs": [], "collapsed": False}]}
    ],
}
NOVEL = {"b": 1, "a": [1.5, None]}


def of_minor(minor):
    """A notebook of an older nbformat 4, without ids."""
    document = notebook([{**code("print(1)", 0), "metadata": {}}], minor=minor)
    document["cells"][0].pop("id")
    return document


def novel():
    document = notebook([{**code("1", 0), "novelty": NOVEL, "metadata": {"novelty": NOVEL}}], minor=6)
    return {**document, "novelty": NOVEL}


def named(*ids):
    return notebook({**code("1", 0), "id": name} for name in ids)


SAID, ERRORS, FILES = "What cells say", "What goes wrong", "Files and parameters"
ALL = (
    Behaviour(
        SAID,
        "merge",
        "five prints with a flush",
        cells("import time\nfor n in range(5):\n    print(n, flush=True)\n    time.sleep(0.02)"),
        merged,
    ),
    Behaviour(
        SAID,
        "update-earlier",
        "`update_display` from a later cell",
        cells(
            "h = display('old', display_id='d')",
            "from IPython.display import update_display\nupdate_display('new', display_id='d')",
        ),
        shows(0),
    ),
    Behaviour(
        SAID,
        "update-both",
        "one display id shown in two cells, then updated: the first",
        cells(
            "_ = display('old', display_id='d')",
            "_ = display('again', display_id='d')",
            "from IPython.display import update_display\nupdate_display('new', display_id='d')",
        ),
        shows(0),
    ),
    Behaviour(
        SAID,
        "clear",
        "`clear_output()` between two prints",
        cells("from IPython.display import clear_output\nprint('a')\nclear_output()\nprint('b')"),
        prints(0),
    ),
    Behaviour(
        SAID,
        "clear-wait",
        "`clear_output(wait=True)` between two prints",
        cells("from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')"),
        prints(0),
    ),
    Behaviour(
        SAID,
        "clear-wait-nothing",
        "`clear_output(wait=True)` with nothing after it",
        cells("from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)"),
        prints(0),
    ),
    Behaviour(
        SAID, "late", "a thread that prints after its cell has finished", cells(THREAD, "import time\ntime.sleep(1.5)"), late
    ),
    Behaviour(SAID, "widget", "state of a widget", cells(WIDGET), widget),
    Behaviour(
        SAID,
        "matplotlib",
        "`%matplotlib inline`",
        cells("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"),
        saved(lambda seen: f"shows {', '.join(seen.mimes(0)) or 'nothing'}"),
    ),
    Behaviour(SAID, "bash", "`%%bash`", cells("%%bash\necho from bash"), prints(0)),
    Behaviour(SAID, "system", "`get_ipython().system`", cells("get_ipython().system('echo from a shell')"), prints(0)),
    Behaviour(SAID, "loop", "a nested event loop, and `await` in a cell", cells(NESTED), prints(0)),
    Behaviour(
        SAID,
        "binary",
        "a PNG and bytes of another type",
        cells(
            "import base64\ndata = base64.b64encode(b'\\x89PNG').decode()\ndisplay({'image/png': data, 'application/x-bytes': data}, raw=True)"
        ),
        saved(lambda seen: f"keeps {', '.join(seen.mimes(0)) or 'nothing'}"),
    ),
    Behaviour(
        SAID,
        "utf8",
        "bytes that are no UTF-8 on standard output",
        cells("import os\n_ = os.write(1, b'a\\xffb\\n')\nimport time\ntime.sleep(0.5)"),
        prints(0),
    ),
    Behaviour(SAID, "lines", f"{LINES:,} lines from one cell", cells(f"for n in range({LINES}):\n    print(n)"), all_lines),
    Behaviour(
        SAID,
        "updates",
        f"{UPDATES:,} updates of a display, each with a line, while the tool stands still for 4 s",
        cells(UPDATE),
        all_updates,
        stall=4,
    ),
    Behaviour(SAID, "large", "a display of 20 MiB", cells(f"display({{'text/plain': 'x' * {20 << 20}}}, raw=True)"), large),
    Behaviour(
        SAID,
        "language",
        "what the kernel says about its language",
        {**cells("1"), "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}},
        language,
    ),
    Behaviour(ERRORS, "error", "a cell raises", cells("1 / 0", "print('after')"), after_error),
    Behaviour(
        ERRORS,
        "raises",
        "a cell tagged `raises-exception` raises",
        notebook([code("1 / 0", 0, tags=["raises-exception"]), code("print('after')", 1)]),
        after_error,
    ),
    Behaviour(
        ERRORS,
        "allow",
        "errors are allowed for the whole notebook",
        {**cells("1 / 0", "print('after')"), "metadata": {**cells()["metadata"], "execution": {"allow_errors": True}}},
        after_error,
        {NBCLIENT: ["--allow-errors"]},
    ),
    Behaviour(
        ERRORS,
        "skip",
        "a cell tagged `skip-execution`",
        notebook([code("print('ran')", 0, tags=["skip-execution"]), code("print('after')", 1)]),
        prints(0, 1),
    ),
    Behaviour(ERRORS, "false", "`!false`, then another cell", cells("!false", "print('after')"), left),
    Behaviour(ERRORS, "bash-false", "`%%bash` that fails", cells("%%bash\nexit 3", "print('after')"), after_error),
    Behaviour(ERRORS, "exit", "`exit()`", exits("exit()"), left),
    Behaviour(ERRORS, "exit-0", "`sys.exit(0)`", exits("sys.exit(0)"), left),
    Behaviour(ERRORS, "exit-none", "`sys.exit()`", exits("sys.exit()"), left),
    Behaviour(ERRORS, "exit-says", "what its cell shows then", exits("sys.exit()"), exit_says),
    Behaviour(ERRORS, "exit-3", "`sys.exit(3)`", exits("sys.exit(3)"), left),
    Behaviour(ERRORS, "exit-words", "`sys.exit('no data')`", exits("sys.exit('no data')"), left),
    Behaviour(ERRORS, "input", "`input()`", cells("input('name? ')", "print('after')"), after_error, limit=30),
    Behaviour(
        ERRORS,
        "died",
        "the kernel ends with exit code 3",
        cells("1", "import os, sys\nprint('before', flush=True)\nos._exit(3)", "2"),
        died,
    ),
    Behaviour(ERRORS, "died-why", "its reason", cells("import os\nos._exit(3)"), reason("exit code 3")),
    Behaviour(ERRORS, "killed-why", "SIGKILL as the reason", cells("import os\nos.kill(os.getpid(), 9)"), reason("SIGKILL")),
    Behaviour(ERRORS, "died-when", "how soon the run is over then", cells(f"{MARK}\nimport os\nos._exit(3)"), noticed),
    Behaviour(
        ERRORS,
        "timeout",
        "a time-out of 2 s for a cell",
        cells("import time\nprint('before', flush=True)\ntime.sleep(60)"),
        traceback,
        TIMEOUT,
    ),
    Behaviour(
        ERRORS,
        "timeout-deaf",
        "the same where the cell does not heed the interrupt",
        cells(
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('before', flush=True)\ntime.sleep(600)"
        ),
        saved(lambda seen: f"{seen.ended()}, text before {'kept' if 'before' in seen.text(0) else 'lost'}"),
        TIMEOUT,
        60,
    ),
    Behaviour(
        ERRORS,
        "timeout-tag",
        "a cell that takes 4 s, tagged `timeout=30s`, with a time-out of 2 s for the others",
        notebook([code("import time\ntime.sleep(4)\nprint('done')", 0, tags=["timeout=30s"])]),
        prints(0),
        TIMEOUT,
    ),
    Behaviour(ERRORS, "child", "a process that a cell left running", cells(CHILD), left_running),
    Behaviour(ERRORS, "colours", "colours of a traceback", cells("1 / 0"), colours),
    Behaviour(
        ERRORS,
        "no-kernel",
        "a kernel that is not there: those that are named",
        {**cells("1"), "metadata": {"kernelspec": {"name": "nowhere", "display_name": "x"}}},
        reason("nowhere", "launched"),
    ),
    Behaviour(FILES, "nbformat-3", "nbformat 3", json.dumps(OLD), version),
    Behaviour(FILES, "nbformat-4.0", "nbformat 4.0", of_minor(0), version),
    Behaviour(FILES, "nbformat-4.4", "nbformat 4.4", of_minor(4), version),
    Behaviour(FILES, "ids", "cell ids", named("first", "second-one"), kept_ids),
    Behaviour(FILES, "ids-equal", "two cells with one id", named("same", "same"), repaired),
    Behaviour(FILES, "unknown", "fields of a newer nbformat 4.6", novel(), unknown),
    Behaviour(
        FILES,
        "parameters",
        "a parameter `x` of 5, by default 1",
        notebook([code("x = 1", 0, tags=["parameters"]), code("print(x)", 1)]),
        parameter,
        {OURS: {"parameters": {"x": 5}}, PAPERMILL: ["-p", "x", "5"]},
    ),
    Behaviour(
        FILES,
        "truncated",
        "a file that is cut off: the line is named",
        json.dumps(cells("1"), indent=1)[:-40],
        reason(r"line \d+,? column \d+"),
    ),
    Behaviour(FILES, "nbformat-5", "nbformat 5: the version is named", {**cells("1"), "nbformat": 5}, reason("nbformat 5")),
    Behaviour(
        FILES,
        "no-source",
        "a cell without `source`: the cell is named",
        notebook([{key: value for key, value in code("1", 0).items() if key != "source"}]),
        reason("cell 1"),
    ),
)
