"""The main job, end to end: a notebook trains a model because a commit asked for it.

Run by scripts/demo. Each step changes a small repository as a person would, waits for what Trainyard makes
of it, prints that, and checks it. The first difference ends the demo with exit code 1.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error

from world import ROOT, Repository, Server, WorldError, wait_for

NOTEBOOK = "train.ipynb"
MODULE = "digits.py"
HYPERPARAMETER = ("learning_rate: 0.002", "learning_rate: 0.004")
BRANCH = "try/module"


def expect(holds, sentence, seen=""):
    """Says one outcome, or ends the demo."""
    if not holds:
        raise WorldError(f"expected: {sentence}\nseen: {seen}")
    print(f"  ok   {sentence}", flush=True)


class Story:
    """The demo's view of the server: waits with a deadline."""

    def __init__(self, server, repository):
        self.server = server
        self.repository = repository

    def push(self, message, branch="main"):
        """Commits and pushes everything; gives the commit and the moment."""
        commit = self.repository.commit(message)
        return commit, self.repository.push(branch)

    def finished(self, commit, seconds=900, watch=lambda jobs: None):
        """The jobs of a commit when all of them are over, by name."""
        pipeline = self.server.pipeline_at(commit)["id"]

        def look():
            detail = self.server.get(f"pipelines/{pipeline}")
            if detail.get("problem"):
                raise WorldError(f"the pipeline has a problem: {detail['problem']}")
            watch({job["name"]: job for job in detail["jobs"]})
            return detail["jobs"] if detail.get("finished_at") else None

        jobs = wait_for(f"the end of {commit[:10]}", seconds, look)
        return {job["name"]: self.server.get(f"jobs/{job['id']}") for job in jobs}

    def version(self, number):
        """A model version; the registry makes it a moment after the job is over."""

        def look():
            try:
                return self.server.get(f"models/digits/{number}")
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                return None

        return wait_for(f"version {number} of the model", 10, look)


def word(job):
    return job["outcome"] if job["state"] == "finished" else job["state"]


def report(job):
    return job["attempts"][-1]["report"]


def metric(job, name):
    return next(metric["value"] for metric in report(job)["metrics"] if metric["name"] == name)


class Cage:
    """Looks at a running job from outside: its container's network, its processes' capabilities."""

    def __init__(self):
        self.networks = set()
        self.capabilities = set()
        self.interfaces = set()
        self.fixed = True
        self.looked_at = set()

    def look(self, jobs):
        if word(jobs["train"]) != "running":
            return
        listed = run_quietly("docker", "ps", "-q", "--no-trunc", "--filter", "label=trainyard.attempt")
        for container in listed.split():
            labels = run_quietly("docker", "inspect", "-f", "{{json .Config.Labels}}", container)
            labels = json.loads(labels or "{}")  # it may be gone by now
            # The container that builds the attempt's environment has a network: it speaks to the package index.
            if labels.get("trainyard.attempt") != jobs["train"]["attempt"] or "trainyard.environment" in labels:
                continue
            network = run_quietly("docker", "inspect", "-f", "{{.HostConfig.NetworkMode}}", container).strip()
            self.networks |= {network} - {""}  # it may be gone by now
            for line in run_quietly("docker", "top", container, "-eo", "pid,uid").splitlines()[1:]:
                pid, uid = line.split()
                if uid != "0":
                    self.look_at(pid)

    def look_at(self, pid):
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            devices = pathlib.Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
            self.capabilities |= {fields[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
            self.fixed &= fields["NoNewPrivs"] == "1"
            self.interfaces |= {device.split(":")[0].strip() for device in devices}
            self.looked_at.add(fields["Name"])


class Screen:
    """Shows the notebook's cells while they run, as `trainyard logs -f` does."""

    def __init__(self, server):
        self.server = server
        self.logs = None

    def look(self, jobs):
        if self.logs is None and word(jobs["train"]) == "running":
            command = [self.server.program, "logs", "-f", jobs["train"]["id"], "--server", self.server.url]
            self.logs = subprocess.Popen(command)

    def end(self):
        if self.logs is not None:
            self.logs.wait(30)


def run_quietly(*command):
    return subprocess.run(command, text=True, capture_output=True).stdout


def first_commit(story, _first):
    cage, screen = Cage(), Screen(story.server)
    commit, _ = story.push("Train on the digits")

    def watch(jobs):
        cage.look(jobs)
        screen.look(jobs)

    jobs = story.finished(commit, watch=watch)
    screen.end()
    train = jobs["train"]
    events = story.server.events(train["id"])
    ran = [event for event in events if event["kind"] == "cell_finished" and event["status"] == "ok"]
    expect(word(jobs["lint"]) == "succeeded", "lint is green", jobs["lint"])
    expect(word(train) == "succeeded", "the notebook's job is green", train.get("kind"))
    expect(len(ran) >= 5, f"{len(ran)} cells were executed", events[-3:])
    expect([e["seq"] for e in events] == list(range(1, len(events) + 1)), f"{len(events)} events, none missing")
    setting = report(train)["setting"]
    expect(setting["executor"] == "docker", f"in a container of {setting['image']}", setting)
    expect(cage.looked_at, f"looked at its processes while it ran: {', '.join(sorted(cage.looked_at))}")
    expect(cage.networks == {"none"} and cage.interfaces <= {"lo"}, "without network", cage.interfaces)
    expect(cage.capabilities == {"0" * 16}, "without capabilities", cage.capabilities)
    expect(cage.fixed, "and without a way to any (no new privileges)")
    accuracy = metric(train, "accuracy")
    expect(accuracy > 0.9, f"accuracy {accuracy:.4f}", accuracy)

    version = story.version(1)
    lineage = version["lineage"]
    expect(lineage["commit"] == commit, f"model version 1 of commit {commit[:10]}", lineage)
    expect(len(lineage["fingerprint"]) == 64, f"notebook fingerprint {lineage['fingerprint'][:12]}")
    expect(len(lineage["setting"]["environment"]) == 64, f"environment key {lineage['setting']['environment'][:12]}")
    expect("scikit-learn==" in lineage["setting"]["packages"], "the packages that it ran with")
    expect(lineage["setting"]["image_id"].startswith("sha256:"), f"image {lineage['setting']['image_id'][:19]}")
    expect(lineage["setting"]["cpu_model"], f"hardware {lineage['setting']['cpu_model']}, {len(lineage['setting']['gpus'])} GPUs")
    expect(version["files"], "its files: " + ", ".join(file["path"] for file in version["files"]))
    return jobs


def executed_again(story, first):
    train = first["train"]
    executed = json.loads(story.server.artifact(train["attempts"][-1], "notebook"))
    outputs = [cell.get("outputs") for cell in executed["cells"] if cell["cell_type"] == "code"]
    counts = [cell.get("execution_count") for cell in executed["cells"] if cell["cell_type"] == "code"]

    def take_outputs(cells):
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        for cell, output, count in zip(code, outputs[-len(code):], counts[-len(code):], strict=True):
            cell["outputs"], cell["execution_count"] = output, 40 + count if count else 41

    story.repository.notebook(NOTEBOOK, take_outputs)
    commit, pushed = story.push("Execute the notebook again")
    jobs = story.finished(commit, seconds=60)
    took = time.time() - pushed
    for name in first:
        expect(word(jobs[name]) == "reused", f"{name}: nothing ran", jobs[name])
        expect(jobs[name]["of"] == first[name]["id"], f"{name}: green, equal to the first result", jobs[name])
    expect(took < 2, f"{took:.2f} s after the push", took)


def module_changed(story, _first):
    story.repository.git("switch", "-q", "-c", BRANCH)
    module = story.repository.path / MODULE
    module.write_text(module.read_text() + "\n\nCHANGED_BY_THE_DEMO = True\n")
    commit, pushed = story.push("Change the imported module", branch=BRANCH)
    jobs = story.finished(commit)
    expect(word(jobs["train"]) == "succeeded" and jobs["train"]["attempts"], "the notebook ran again", jobs["train"])
    expect(word(jobs["lint"]) == "reused", f"lint: {word(jobs['lint'])}", word(jobs["lint"]))
    first = next(e["at"] for e in story.server.events(jobs["train"]["id"]) if e["kind"] == "cell_started")
    waited = first / 1000 - pushed
    expect(waited < 3, f"its first cell began {waited:.2f} s after the push, in the environment that was there", waited)


def flake(story, _first):
    def unused_import(cells):
        last = [cell for cell in cells if cell["cell_type"] == "code"][-1]
        last["source"] = ["import os\n", *last["source"]]

    story.repository.notebook(NOTEBOOK, unused_import)
    text = (story.repository.path / NOTEBOOK).read_text()
    cells = json.loads(text)["cells"]
    place = max(i for i, cell in enumerate(cells) if cell["cell_type"] == "code") + 1
    raw_line = next(i for i, line in enumerate(text.splitlines(), 1) if '"import os\\n"' in line)
    commit, _ = story.push("Import what is not used", branch=BRANCH)
    jobs = story.finished(commit)
    lint = jobs["lint"]
    expect(word(lint) == "failed" and lint["kind"] == "lint_failed", "lint is red, owner user", lint["outcome"])
    found = [event for event in story.server.events(lint["id"]) if event["kind"] == "finding"]
    seen = [(f["path"], f["cell"], f["line"], f["raw_line"], f["code"]) for f in found]
    expect(
        (NOTEBOOK, place, 1, raw_line, "F401") in seen,
        f"the finding: {NOTEBOOK}, cell {place}, line 1, line {raw_line} of the file: F401",
        seen,
    )
    expect(word(jobs["train"]) == "skipped" and not jobs["train"]["attempts"], "nothing was executed", jobs["train"])
    story.repository.git("revert", "--no-edit", "HEAD")


def raising(story, _first):
    def divide(cells):
        last = [cell for cell in cells if cell["cell_type"] == "code"][-1]
        last["source"] = ["1 / 0"]
        last["outputs"] = []

    story.repository.notebook(NOTEBOOK, divide)
    commit, _ = story.push("Divide by zero", branch=BRANCH)
    jobs = story.finished(commit)
    train = jobs["train"]
    expect(word(train) == "failed" and train["kind"] == "cell_raised", "red, owner user", train["outcome"])
    expect("ZeroDivisionError" in train["detail"], f"traceback shown: {train['message']}", train)
    kept = json.loads(story.server.artifact(train["attempts"][-1], "notebook"))
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    expect(any(cell["outputs"] for cell in code[:-1]), "the notebook up to that cell is kept")
    expect(code[-1]["outputs"][0]["ename"] == "ZeroDivisionError", "with the error in its cell")


def hyperparameter(story, _first):
    story.repository.git("switch", "-q", "main")
    story.repository.edit(".trainyard.yml", *HYPERPARAMETER)
    commit, _ = story.push(f"Set {HYPERPARAMETER[1]}")
    jobs = story.finished(commit)
    expect(word(jobs["train"]) == "succeeded", "the notebook ran", jobs["train"])
    now, before = story.version(2), story.version(1)
    expect(now["lineage"]["commit"] == commit, "model version 2", now["lineage"]["commit"])
    compared = story.server.command("models", "compare", "digits", "1", "2")
    print("".join(f"       {line}\n" for line in compared.splitlines()), end="")
    values = [next(m["value"] for m in v["metrics"] if m["name"] == "accuracy") for v in (before, now)]
    expect("accuracy" in compared, f"side by side: accuracy {values[0]:.4f} and {values[1]:.4f}", compared)


STEPS = [
    ("(a) the first commit trains a model", first_commit),
    ("(b) a commit that only executes the notebook again", executed_again),
    ("(c) a commit that changes only the imported module", module_changed),
    ("(d) a flake in one cell", flake),
    ("(e) a cell that raises", raising),
    ("(f) a hyperparameter changes", hyperparameter),
]


def tell(story):
    """Tells the whole story; gives what was different, if anything was."""
    first = None
    try:
        for headline, step in STEPS:
            print(headline, flush=True)
            began = time.monotonic()
            first = step(story, first) or first
            print(f"       {time.monotonic() - began:.1f} s", flush=True)
    except (WorldError, OSError) as different:
        return different
    return None


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave it up to be looked at, until Ctrl-C")
    parser.add_argument("program", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp(prefix="trainyard-demo-"))
    try:
        repository = Repository(folder, ROOT / "examples" / "digits")
        with Server(arguments.program, folder) as server:
            server.post("projects", {"name": "digits", "url": str(repository.remote)})
            print(f"Trainyard is at {server.url}; its data and the repository lie in {folder}", flush=True)
            different = tell(Story(server, repository))
            if different:
                print(f"  DIFFERENT\n{different}\nthe server's log: {server.log}", file=sys.stderr)
            else:
                print("All as told.", flush=True)
            if arguments.keep:
                print(f"Look at {server.url}; push to {repository.remote} from {repository.path}. Ctrl-C ends it.", flush=True)
                signal.pause()
            if different:
                return 1
    except KeyboardInterrupt:
        print("ended")
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
