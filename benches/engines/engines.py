"""Ours and the peers, each as people start it: a notebook in, an executed notebook out. Knows nothing of cases."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import sys

from engines import measure

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LAUNCHER = ROOT / "src" / "driver" / "launcher.py"
OURS, PAPERMILL, NBCLIENT, NBCONVERT = "trainyard", "papermill", "nbclient", "nbconvert"
LAUNCHED = "nbclient by our launcher"
KERNEL, LOOP = "bare kernel start", "bare message loop"
NAME = "nb.ipynb"

# From the spawn of a kernel to its first answer, without the import of what starts it.
KERNEL_START = """\
import time
from jupyter_client.manager import KernelManager

began = time.perf_counter()
kernel = KernelManager()
kernel.start_kernel()
client = kernel.client()
client.start_channels(hb=False, stdin=False)
client.kernel_info()
client.get_shell_msg(timeout=120)
print("took", time.perf_counter() - began)
kernel.shutdown_kernel(now=True)
"""
# Each cell sent, and all messages taken until its idle; nothing is kept. Counted lines and displays at the end.
MESSAGE_LOOP = """\
import json
import sys
from jupyter_client.manager import KernelManager

cells = [cell for cell in json.load(open(sys.argv[1]))["cells"] if cell["cell_type"] == "code"]
kernel = KernelManager()
kernel.start_kernel()
client = kernel.blocking_client()
client.start_channels()
client.wait_for_ready(timeout=120)
for cell in cells:
    request = client.execute("".join(cell["source"]))
    while True:
        message = client.get_iopub_msg(timeout=600)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
    client.get_shell_msg(timeout=60)
client.stop_channels()
kernel.shutdown_kernel(now=True)
"""


@dataclasses.dataclass
class Ran:
    """What an engine made of a notebook."""

    took: measure.Took
    executed: dict | None
    """The executed notebook, where one was left."""
    result: dict | None = None
    """Ours: the driver's last word."""
    events: list | None = None
    """Ours: its events."""
    after_mark: float | None = None
    """Seconds from the moment that the notebook wrote to `~/mark` to the tool's end."""
    left_running: bool | None = None
    """Whether the process whose id the notebook wrote to `~/child` outlived the tool."""


class Place:
    """A temporary folder in which engines run, with a HOME and kernelspecs of its own."""

    def __init__(self, folder, python, driver=None, program=None):
        """`python`: of the peers' environment; its kernel is everybody's. `driver` and `program`: ours."""
        self.folder = folder
        self.bin = pathlib.Path(python).parent
        self.python = python
        self.driver = driver
        self.program = program
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        spec = folder / "jupyter" / "kernels" / "launched"
        spec.mkdir(parents=True)
        argv = [str(python), "-c", LAUNCHER.read_text(), "-f", "{connection_file}"]
        kernel = {"argv": argv, "display_name": "by our launcher", "language": "python"}
        (spec / "kernel.json").write_text(json.dumps(kernel))
        self.env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "JUPYTER_PATH": str(folder / "jupyter"),
        }
        self.count = 0

    def fresh(self):
        """An empty folder for one run."""
        self.count += 1
        folder = self.folder / f"run-{self.count}"
        folder.mkdir()
        return folder

    def run(self, engine, source, *, options=None, limit=3600.0, stall=None):
        """Runs an engine on the file `source`. `options` are of the engine: arguments of a peer, fields of our job.
        `stall`: for so many seconds the engine, not its kernel, stands still once the notebook wrote to `~/mark`."""
        folder = self.fresh()
        mark, child = self.home / "mark", self.home / "child"
        for file in (mark, child):
            file.unlink(missing_ok=True)
        how = {"env": self.env, "cwd": folder, "limit": limit, "stall": stall and (mark, stall)}
        try:
            if engine == OURS:
                ran = self.ours(folder, source, dict(options or {}), how)
            else:
                ran = self.peer(engine, folder, source, options or (), how)
            if mark.exists():
                ran.after_mark = ran.took.ended_at - float(mark.read_text())
            if child.exists():
                ran.left_running = end_child(int(child.read_text()))
            return ran
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def ours(self, folder, source, fields, how):
        work = folder / "work"
        work.mkdir()
        shutil.copy(source, work / NAME)
        job = {
            "work": {"work": "notebook", "path": NAME, "parameters": fields.pop("parameters", {})},
            "workdir": str(work),
            "env": self.env,
            "limits": {"timeout": int(how["limit"] * 1000), **fields.pop("limits", {})},
            "kernel_start_timeout": 120_000,
            "grace": 5_000,
            **fields,
        }
        (folder / "job.json").write_text(json.dumps(job))
        took = measure.run([self.driver, "run", "--dir", folder], **how)
        out = folder / "out"
        result = read_json(out / "result.json")
        return Ran(took, read_json(out / "executed.ipynb"), result, read_events(out / "events.ndjson"))

    def peer(self, engine, folder, source, arguments, how):
        given, made = folder / NAME, folder / "executed.ipynb"
        shutil.copy(source, given)
        commands = {
            PAPERMILL: [self.bin / "papermill", "--cwd", folder, *arguments, given, made],
            NBCLIENT: [self.bin / "jupyter", "execute", *arguments, f"--output={made.stem}", given],
            LAUNCHED: [self.bin / "jupyter", "execute", "--kernel_name=launched", f"--output={made.stem}", given],
            NBCONVERT: [
                *(self.bin / "jupyter", "nbconvert", "--to", "notebook", "--execute", *arguments),
                *("--ExecutePreprocessor.timeout=-1", f"--output={made.stem}", given),
            ],
            LOOP: [self.python, "-W", "ignore", "-c", MESSAGE_LOOP, given],
        }
        took = measure.run(commands[engine], **how)
        return Ran(took, read_json(made))

    def kernel_start(self):
        """Seconds from the spawn of a kernel to its first answer."""
        folder = self.fresh()
        took = measure.run([self.python, "-W", "ignore", "-c", KERNEL_START], env=self.env, cwd=folder, limit=120)
        words = took.output.split()
        if took.code or "took" not in words:
            raise measure.MeasureError(f"the bare kernel did not start:\n{took.output[-2000:]}")
        return float(words[words.index("took") + 1])


def end_child(pid):
    """Whether a process that a notebook left behind still runs; it is ended then."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def read_json(path):
    """The document, or none where there is no such file or it is not whole."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def read_events(path):
    """All events of the driver, in order."""
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        print(f"  {path}: {error}", file=sys.stderr)
        return None
