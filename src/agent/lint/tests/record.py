"""Makes the recorded outputs in data/: in the root of the project

    docker run --rm -v "$PWD/src/agent/lint:/lint" -w /lint/tests trainyard/notebook python record.py

It writes the notebooks and, for each tool with the versions of that image, what `trainyard lint` gets to read: <tool>.out,
.err, .code and .notes. The command lines are those of script.rs.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MARKDOWN, CODE, RAW = "markdown", "code", "raw"

NOTEBOOKS = {
    # Everything that makes nbQA miscount, and findings after it.
    "mess.ipynb": [
        (MARKDOWN, "# A mess"),
        (CODE, "import sys\nimport os"),
        (CODE, "%matplotlib inline\nx = 1\n\ndef f(a):\n    b=a+1\n    y = undefined_name\n    return  3"),
        (MARKDOWN, "text\nmore text"),
        (CODE, "\n\nimport functools\n@functools.cache\ndef g():\n    l = 1\n    return l;"),
        (CODE, "%%time\n\ndef h():\n    pass\nzz = undefined2"),
        (CODE, "%%bash\nls undefined"),
        (CODE, "y = !ls\nq = undefined3\nplot(y);"),
        (CODE, "%run a \\\n  b\nr = undefined4"),
        (CODE, "class A:\n    x=1\n    def m(self):\n        pass\n    @property\n    def n(self):\n        return und5"),
        (RAW, "raw"),
        (CODE, "s = '''\n\n\n\n\n'''\nfor i in range(3):\n    pass\n\n\n\n\nund6"),
        (CODE, "t = 'x\u2028y'\nund7"),
        (CODE, "und8\nimport re"),
    ],
    # One cell is no Python: ruff says so and nothing else, nbQA leaves it out.
    "bad.ipynb": [
        (MARKDOWN, "bad"),
        (CODE, "import json"),
        (CODE, "def broken(:\n    pass"),
        (CODE, "und9"),
    ],
    # Magics that a regular expression would read as something else.
    "magic.ipynb": [(CODE, "!printf 'a\\nb\\d' \\1\nx=1"), (MARKDOWN, "m"), (CODE, "%time  y=2\nz=3")],
    "b b.ipynb": [(CODE, "import json\nund10"), (RAW, "x"), (CODE, "  \nz=1")],
}

PYLINT = "--msg-template={path}:{line}:{column}: {msg_id}: {msg} ({symbol})"
TOOLS = {
    "ruff": ["ruff", "check", "--no-cache", "--force-exclude", "--output-format", "json"],
    "ruff-format": ["ruff", "format", "--no-cache", "--force-exclude", "--diff"],
    "nbqa ruff": ["ruff", "--no-cache", "--force-exclude", "--output-format", "json"],
    "black": ["black", "--nbqa-diff"],
    "isort": ["isort", "--nbqa-diff", "--filter-files"],
    "flake8": ["flake8", "--format", "default", "--no-show-source"],
    "mypy": ["mypy", "--show-column-numbers", "--no-pretty", "--no-error-summary", "--cache-dir=/dev/null"],
    "pylint": ["pylint", "--output-format=text", PYLINT, "--score=n", "--reports=n"],
    "pyupgrade": ["pyupgrade", "--py310-plus"],
    "vulture": ["vulture", "--min-confidence", "60"],
}


def cell(number, kind, source):
    made = {"cell_type": kind, "id": f"c{number}", "metadata": {}, "source": source.splitlines(True)}
    if "\u2028" in source:  # Python splits lines there, notebooks do not
        made["source"] = [line + "\n" for line in source.split("\n")[:-1]] + [source.split("\n")[-1]]
    return made if kind != CODE else {**made, "outputs": [], "execution_count": None}


def main():
    data = Path(__file__).parent / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    # What the tools see of paths is what they see in a job.
    workspace = Path("/workspace")
    workspace.mkdir(exist_ok=True)
    os.chdir(workspace)
    for name, cells in NOTEBOOKS.items():
        made = [cell(number, *of) for number, of in enumerate(cells)]
        language = {"language_info": {"name": "python"}}
        notebook = {"cells": made, "metadata": language, "nbformat": 4, "nbformat_minor": 5}
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        Path(name).write_text(text, encoding="utf-8")
        (data / name).write_text(text, encoding="utf-8")
    shim = (data.parent.parent / "nbqa.py").read_text(encoding="utf-8")
    for tool, (command, *options) in TOOLS.items():
        notes = data / f"{tool}.notes"
        env = {**os.environ, "TRAINYARD_NOTES": str(notes)}
        argv = [command, *NOTEBOOKS, *options]
        if tool in ("ruff", "ruff-format"):
            argv = [command, *options, *NOTEBOOKS]
        else:
            argv = [sys.executable, "-c", shim, *argv]
        done = subprocess.run(argv, env=env, capture_output=True, check=False)
        (data / f"{tool}.out").write_bytes(done.stdout)
        (data / f"{tool}.err").write_bytes(done.stderr)
        (data / f"{tool}.code").write_text(f"{done.returncode}\n")
        if command == "flake8":
            plain = subprocess.run(["nbqa", command, *NOTEBOOKS], capture_output=True, check=False)
            (data / "flake8-plain.out").write_bytes(plain.stdout)


main()
