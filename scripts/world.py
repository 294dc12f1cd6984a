"""A world of its own for benchmarks and pictures: a `trainyard up`, and a repository that somebody pushes to.

Everything lies in one temporary folder and ends with the block that it was made in. It speaks to the program as people
do: git, the command line, the public API.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A person without settings of their own, so that those of this machine's user change nothing.
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "somebody",
    "GIT_AUTHOR_EMAIL": "somebody@example.org",
    "GIT_COMMITTER_NAME": "somebody",
    "GIT_COMMITTER_EMAIL": "somebody@example.org",
}
# Loopback is never reached by way of a proxy.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class WorldError(Exception):
    """The world is not as it was asked to be; the text says what was seen."""


@contextlib.contextmanager
def temporary_folder(prefix):
    """A folder in the place for temporary files, removed with all that lies in it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(what, seconds, look, pause=0.05):
    """What `look` gives once it gives something; an error that names `what` when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        if (found := look()) is not None:
            return found
        if time.monotonic() > deadline:
            raise WorldError(f"{what}: not within {seconds} s")
        time.sleep(pause)


class Server:
    """A `trainyard up` on a free port with its data in `folder`; a context that ends it."""

    def __init__(self, program, folder, agent_settings=""):
        self.program = program
        self.folder = folder
        self.log = folder / "up.log"
        settings = folder / "agent.toml"
        settings.write_text(agent_settings)
        command = [program, "up", "--json", "--data", folder / "data", "--listen", "127.0.0.1:0", "--agent-config", settings]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,  # in no repository, so that nothing is watched unasked
                stdout=subprocess.PIPE,
                stderr=log,
            )
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(30)
            raise WorldError(f"`trainyard up` did not start:\n{self.words()}")
        self.url = json.loads(line)["url"]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if exception[0] is not None:
            self.cancel_all()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def words(self):
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def get(self, path):
        with HTTP.open(f"{self.url}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path, body):
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with HTTP.open(request, timeout=30) as answer:
            return json.load(answer)

    def artifact(self, attempt, role):
        """The content of an attempt's one artifact of a role."""
        path = next(file["path"] for file in attempt["artifacts"] if file["role"] == role)
        url = f"{self.url}/api/v1/artifacts/{attempt['id']}/{urllib.parse.quote(path)}?role={role}"
        with HTTP.open(url, timeout=30) as answer:
            return answer.read()

    def command(self, *arguments):
        """What a command of the program prints about this server."""
        environment = {**os.environ, "TRAINYARD_SERVER": self.url}
        done = subprocess.run(
            [self.program, *arguments], env=environment, cwd=self.folder, text=True, capture_output=True
        )
        if done.returncode:
            raise WorldError(f"trainyard {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def ready(self):
        """Waits until its own agent may get work."""
        wait_for("an idle agent", 60, lambda: self.get("agents")["items"] or None)

    def events(self, job):
        """All events of a job's believed attempt."""
        events = []
        while True:
            start = events[-1]["seq"] + 1 if events else 1
            with HTTP.open(f"{self.url}/api/v1/jobs/{job}/events?from={start}", timeout=30) as answer:
                page = [json.loads(line) for line in answer.read().splitlines() if line.strip()]
            if not page:
                return events
            events += page

    def pipeline_at(self, commit, seconds=60):
        """The pipeline of a commit, once there is one."""

        def look():
            found = (p for p in self.get("pipelines?limit=20")["items"] if p["commit"] == commit)
            return next(found, None)

        return wait_for(f"a pipeline for {commit[:10]}", seconds, look)

    def succeeded(self, commit, seconds=1800, watch=lambda: None):
        """The pipeline of a commit with its jobs, once all have succeeded; `watch` is called at each look."""
        pipeline = self.pipeline_at(commit)["id"]

        def look():
            watch()
            detail = self.get(f"pipelines/{pipeline}")
            return detail if detail.get("finished_at") else None

        detail = wait_for(f"the end of {commit[:10]}", seconds, look)
        if detail["state"] != "succeeded":
            raise WorldError(f"commit {commit[:10]} is {detail['state']}: {json.dumps(detail, indent=1)}")
        return detail

    def cancel_all(self):
        """Ends what still runs, so that no container outlives a world that failed."""
        with contextlib.suppress(Exception):
            for pipeline in self.get("pipelines?limit=20")["items"]:
                for job in self.get(f"pipelines/{pipeline['id']}")["jobs"]:
                    if job["state"] != "finished":
                        self.post(f"jobs/{job['id']}/cancel", {})
            wait_for("the end of all jobs", 30, lambda: not self.containers() or None)

    def containers(self):
        """Ids of containers that mount a folder of this world."""
        listed = subprocess.run(
            ["docker", "ps", "-q", "--no-trunc", "--filter", "label=trainyard.attempt", "--format", "{{.ID}} {{.Mounts}}"],
            capture_output=True,
            text=True,
        ).stdout
        return [line.split()[0] for line in listed.splitlines() if str(self.folder) in line]


class Repository:
    """A checkout of a copy of `source`, and the bare repository `remote` that it is pushed to."""

    def __init__(self, folder, source):
        self.remote = folder / f"{source.name}.git"
        self.path = folder / source.name
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "model", "metrics.json")
        shutil.copytree(source, self.path, ignore=ignored)
        self.git("init", "-q", "--bare", "-b", "main", str(self.remote))
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", str(self.remote))

    def git(self, *arguments):
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env={**os.environ, **GIT}, text=True, capture_output=True
        )
        if done.returncode:
            raise WorldError(f"git {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def commit(self, message):
        """Commits everything, and gives the commit."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def push(self, branch="main"):
        """Pushes what is checked out to a branch, and gives the moment at which the remote had it (seconds since 1970)."""
        self.git("push", "-q", "origin", f"HEAD:{branch}")
        return time.time()

    def edit(self, path, old, new):
        """Replaces a text that stands once in a file."""
        file = self.path / path
        text = file.read_text()
        if text.count(old) != 1:
            raise WorldError(f"{path} holds {old!r} {text.count(old)} times")
        file.write_text(text.replace(old, new))

    def notebook(self, path, change):
        """Hands the cells to `change`, and writes the notebook as Jupyter does."""
        file = self.path / path
        notebook = json.loads(file.read_text())
        change(notebook["cells"])
        file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
