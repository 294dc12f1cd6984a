"""nbQA, with its notes kept: python -c THIS TOOL NOTEBOOK... [OPTION...]

nbQA joins a notebook's code cells to one Python file, lets a tool read that, and writes cells and lines into the tool's
words. The lines are those of cells whose blank lines autopep8 has moved, and some words it misses; a cell that it cannot
read it leaves out in silence. So the words are left as the tool said them, and a file ($TRAINYARD_NOTES) tells what was
joined: the text, which cell each part is, what was left out and why, and what the tool changed. No notebook is written.
The exit code is the tool's own. Where nbQA is not as it is known, it runs as it is and there is no file.
"""

import sys

sys.path = [folder for folder in sys.path if folder]

import ast
import difflib
import json
import os

import nbqa.__main__ as main

os.environ.setdefault("MYPY_FORCE_COLOR", "0")
files, names = {}, {}
state = {"code": None, "cells": []}


def fault(source):
    """What is wrong with a cell's syntax: line, column, words; none where only nbQA cannot take it."""
    body = save_code_source.TransformerManager().transform_cell(source)
    try:
        ast.parse(body)
    except SyntaxError as error:
        same = body.count("\n") - source.count("\n") in (0, 1)
        return [error.lineno if same else None, error.offset if same else None, str(error.msg)]
    return None


def look(notebook, info):
    """Cells that nbQA did not show the tool, though they are Python."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    bad, passed = [], []
    for number, cell in enumerate(code, start=1):
        source = "".join(cell["source"])
        whole = [magic.src for magic in info.temporary_lines.get(number, [])] == [source]
        if whole and "\n" in source.strip("\n"):
            wrong = fault(source)
            if wrong:
                bad.append([number, *wrong])
            else:
                passed.append(number)
        elif whole and not source.lstrip().startswith(("%", "!", "?")):
            wrong = fault(source)
            if wrong:
                bad.append([number, *wrong])
        elif number in info.code_cells_to_ignore and "get_ipython()." in source:
            passed.append(number)
    return bad, passed


def numbers(notebook, info):
    count = sum(cell["cell_type"] == "code" for cell in notebook["cells"])
    return [number for number in range(1, count + 1) if number not in info.code_cells_to_ignore]


def join(notebook, file, *args, **kwargs):
    info = real_join(notebook, file, *args, **kwargs)
    with open(file, encoding="utf-8", newline="") as opened:
        text = opened.read()
    bad, passed = look(notebook, info)
    files[file] = {"text": text, "cells": numbers(notebook, info), "bad": bad, "passed": passed, "changed": []}
    return info


def run(command, *args, **kwargs):
    output, state["code"], mutated = real_run(command, *args, **kwargs)
    return output, state["code"], mutated


def new_source(number, info, cell, *args):
    # nbQA puts magics back by a regular expression that reads their backslashes: that would change them.
    magics = info.temporary_lines.get(number, [])
    kept = [magic.src for magic in magics]
    for magic in magics:
        magic.src = magic.src.replace("\\", "\\\\")
    source = real_new_source(number, info, cell, *args)
    for magic, src in zip(magics, kept):
        magic.src = src
    state["cells"].append((number, cell, "".join(source)))
    return source


def diff(file, notebook, *args, **kwargs):
    state["cells"] = []
    changed = real_diff(file, notebook, *args, **kwargs)
    before = dict(zip(files[file]["cells"], files[file]["text"].split(separator)[1:]))
    with open(notebook, encoding="utf-8") as opened:
        code = [cell for cell in json.load(opened)["cells"] if cell["cell_type"] == "code"]
    for number, cell, new in state["cells"]:
        # nbQA has moved blank lines before the tool came: that is not the tool's doing.
        if cell.strip("\n") != before[number].strip("\n"):
            old = "".join(code[number - 1]["source"]).rstrip("\n")
            lines = list(difflib.unified_diff(old.split("\n"), new.split("\n"), lineterm=""))[2:]
            if lines:
                files[file]["changed"].append([number, "\n".join(lines)])
    return changed


def as_said(_command, out, err, _notebook, _mapping):
    return Output(out, err)


def joining(*args, **kwargs):
    found = real_joining(*args, **kwargs)
    names.update({temporary.file: notebook for notebook, temporary in found.items()})
    return found


try:
    from nbqa import replace_source, save_code_source
    from nbqa.output_parser import Output

    separator = save_code_source.CODE_SEPARATOR
    real_join, real_run, real_diff = save_code_source.main, main._run_command, replace_source.diff
    real_new_source, real_joining = replace_source._get_new_source, main._get_nb_to_tmp_mapping
    _ = (main.REPLACE_FUNCTION, main.map_python_line_to_nb_lines, replace_source._print_diff)
except (ImportError, AttributeError):
    sys.exit(main.main())

save_code_source.main, main._run_command, replace_source._get_new_source = join, run, new_source
replace_source._print_diff = lambda _number, lines: bool(list(lines))
main.REPLACE_FUNCTION = {True: diff, False: diff}
main._get_nb_to_tmp_mapping, main.map_python_line_to_nb_lines = joining, as_said

ended = main.main([*sys.argv[1:], "--nbqa-diff"])
if state["code"] is not None:
    with open(os.environ["TRAINYARD_NOTES"], "w", encoding="utf-8") as opened:
        notebooks = {names[file]: note for file, note in files.items()}
        json.dump({"separator": separator.rstrip("\n"), "notebooks": notebooks}, opened)
    ended = state["code"] if state["code"] >= 0 else 128 - state["code"]
sys.exit(ended)
