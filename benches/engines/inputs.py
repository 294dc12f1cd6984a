"""The notebooks that are executed and compared, made the same each time. Knows no tool."""

import json

LINES = 2_000_000
UPDATES = 10_000
DISPLAY = 50 << 20

PLOT = """\
%matplotlib inline
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([x * {n} % 17 for x in range(200)])
plt.show()"""

# A progress bar as they are in notebooks: a line of text, two displays that are updated, and a widget's state.
PROGRESS = f"""\
from comm import create_comm
from IPython.display import display, HTML

model = {{"_model_name": "IntProgressModel", "_model_module": "@jupyter-widgets/controls", "_model_module_version": "2.0.0"}}
widget = create_comm(target_name="jupyter.widget", data={{"state": {{**model, "value": 0}}}}, metadata={{"version": "2.1.0"}})
bar = display(HTML("<progress value=0 max={UPDATES}>"), display_id=True)
text = display("0 of {UPDATES}", display_id=True)
for i in range({UPDATES}):
    print(f"step {{i}}", flush=True)
    bar.update(HTML(f"<progress value={{i}} max={UPDATES}>"))
    text.update(f"{{i}} of {UPDATES}")
    widget.send({{"method": "update", "state": {{"value": i}}}})
"""


def code(source, index, outputs=(), tags=()):
    """A code cell."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": f"cell-{index}",
        "metadata": {"tags": list(tags)} if tags else {},
        "outputs": list(outputs),
        "source": source.splitlines(keepends=True),
    }


def notebook(cells, minor=5, **metadata):
    """A notebook of these cells."""
    kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernelspec, "language_info": {"name": "python"}, **metadata}
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}


def write(path, document):
    """As Jupyter writes it."""
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def cells(*sources):
    """A notebook of code cells."""
    return notebook(code(source, index) for index, source in enumerate(sources))


def text_of(value):
    """Text of a notebook's field: a string or a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def streams(cell, name="stdout"):
    """All text that a cell wrote to a stream."""
    outputs = (out for out in cell["outputs"] if out["output_type"] == "stream" and out["name"] == name)
    return "".join(text_of(out["text"]) for out in outputs)


def displays(cell, mime):
    """What a cell displayed of a MIME type, in order."""
    kinds = ("display_data", "execute_result")
    outputs = (out for out in cell["outputs"] if out["output_type"] in kinds and mime in out["data"])
    return [text_of(out["data"][mime]) for out in outputs]
