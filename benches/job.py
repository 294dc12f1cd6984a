"""from a pushed commit to its first cell and to its end, cold and warm, beside `docker run` and a bare kernel start

The notebook is examples/digits. Its first cell prints the time: by this one clock all contenders' first cells are
compared. Each starts to count when the remote has the commit. Ours has to notice it (a look each second), plans,
lints, isolates, collects, and is done when the pipeline is. The peers are what a CI job does, from a script that starts
at once: clone, environment, ruff, `jupyter execute` in a container of the same image, with the same CPUs and memory.

cold   no environment on the host. Ours: a server with an empty folder. Peers: pip, or uv, with empty caches.
warm   the same again after a change of the notebook. The peer gets its environment ready-made, at no cost.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import rows
import world

IMAGE = "trainyard/notebook"
NOTEBOOK = "train.ipynb"
CPUS = min(2, os.cpu_count() or 1)
PIPELINE = f"""\
defaults: {{python: requirements.txt}}
lint: [ruff]
jobs:
  train:
    notebook: {NOTEBOOK}
    on: {{push: [main]}}
    deps: [digits.py]
    resources: {{cpus: {CPUS}, memory: 2GiB}}
    model: {{name: digits, path: model/}}
"""
STAMP = ["import time\n", "\n", 'print(f"first cell at {time.time():.4f}")']
FIRST, END, MEMORY = "pushed to first cell", "pushed to end", "tool's peak memory"

# `jupyter execute` as it is, and at its end its own peak memory, without that of its kernel.
EXECUTE = """\
import atexit
import pathlib


def peak():
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM:"))
    pathlib.Path("/bench/peak").write_text(line.split()[1])


atexit.register(peak)
from nbclient.cli import main

main()
"""
# The kernel alone, in a container that runs already: from its spawn to its first answer.
KERNEL = """\
import time
from jupyter_client.manager import KernelManager

began = time.perf_counter()
kernel = KernelManager()
kernel.start_kernel()
client = kernel.client()
client.start_channels(hb=False, stdin=False)
client.kernel_info()
client.get_shell_msg(timeout=120)
print(time.perf_counter() - began)
kernel.shutdown_kernel(now=True)
"""
PIP = "python -m venv --system-site-packages {env} && {env}/bin/pip install --quiet -r {requirements} nbclient"
UV = (
    "/bench/uv venv --quiet --system-site-packages --python /usr/bin/python3 {env}"
    " && /bench/uv pip install --quiet --link-mode copy --compile-bytecode --python {env}/bin/python -r {requirements} nbclient"
)
PASSED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "http_proxy", "https_proxy", "no_proxy")


class Peer:
    """`docker run` of the job image with `jupyter execute`, as a CI job would."""

    def __init__(self, folder, repository, uv):
        self.folder = folder / "peer"
        self.repository = repository
        self.folder.mkdir()
        (self.folder / "execute.py").write_text(EXECUTE)
        (self.folder / "kernel.py").write_text(KERNEL)
        self.uv = uv

    def docker(self, script, *mounts):
        bundle = os.environ.get("TRAINYARD_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        command = ["docker", "run", "--rm", "--label", "trainyard.bench=job", f"--cpus={CPUS}", "--memory=2g"]
        command += [f"--volume={self.folder}:/bench", f"--volume={self.uv}:/bench/uv:ro"]
        command += [f"--volume={mount}" for mount in mounts]
        command += [f"--env={name}" for name in PASSED if name in os.environ]
        if bundle:
            command += [f"--volume={bundle}:/etc/ssl/bundle.pem:ro"]
            command += ["--env=PIP_CERT=/etc/ssl/bundle.pem", "--env=SSL_CERT_FILE=/etc/ssl/bundle.pem"]
        done = subprocess.run([*command, IMAGE, "sh", "-euc", script], capture_output=True, text=True)
        if done.returncode:
            raise world.WorldError(f"the peer failed: {script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def make_environment(self):
        """The ready-made environment of the warm peer; gives the version of its nbclient."""
        self.docker(UV.format(env="/bench/env", requirements="/source/requirements.txt"), f"{self.repository.path}:/source:ro")
        return self.docker("/bench/env/bin/python -c 'import nbclient; print(nbclient.__version__)'").strip()

    def run(self, make):
        """Clones and runs; gives the seconds to the first cell and to the end, and the peak memory in MiB."""
        began = time.time()
        clone = f"{self.folder}/clone"
        self.repository.git("clone", "-q", "--depth", "1", f"file://{self.repository.remote}", clone)
        env = "/tmp/env" if make else "/bench/env"
        steps = [make.format(env=env, requirements="requirements.txt")] if make else []
        steps += [f"ruff check --quiet {NOTEBOOK}", f"{env}/bin/python /bench/execute.py --inplace {NOTEBOOK}"]
        self.docker("cd /bench/clone\n" + "\n".join(steps))
        ended = time.time()
        executed = json.loads(pathlib.Path(clone, NOTEBOOK).read_text())
        text = "".join(executed["cells"][0]["outputs"][0]["text"])
        peak = int((self.folder / "peak").read_text()) / 1024
        self.docker("rm -rf /bench/clone /bench/peak")  # the container's user made them
        return stamp(text) - began, ended - began, peak

    def kernel(self):
        """Seconds from the spawn of a kernel to its first answer."""
        return float(self.docker("python -W ignore /bench/kernel.py 2>/dev/null"))

    def clear(self):
        with contextlib.suppress(world.WorldError):
            self.docker("rm -rf /bench/env /bench/clone")


class DriverWatch:
    """The driver's peak memory, looked at from outside while the attempt runs."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.status = None
        self.peak = 0

    def __call__(self):
        if self.status is None:
            self.status = next(filter(self.is_ours, pathlib.Path("/proc").glob("[0-9]*/comm")), None)
            self.status = self.status and self.status.with_name("status")
        if self.status:
            try:
                lines = self.status.read_text().splitlines()
                self.peak = max(self.peak, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")))
            except (OSError, StopIteration):
                self.status = None  # that attempt is over; the pipeline may have another

    def is_ours(self, comm):
        with contextlib.suppress(OSError):
            return comm.read_text().startswith("trainyard-drive") and self.folder in comm.with_name("mountinfo").read_text()
        return False


def stamp(text):
    """The moment that the first cell printed."""
    words = text.split("first cell at ")
    if len(words) != 2:
        raise world.WorldError(f"the first cell said {text!r}")
    return float(words[1].split()[0])


def ours(server, repository):
    """Pushes what is committed and waits for its end; gives the samples by measure."""
    commit = repository.git("rev-parse", "HEAD")
    watch = DriverWatch(server.folder)
    pushed = repository.push()
    detail = server.succeeded(commit, watch=watch)
    train = next(job for job in detail["jobs"] if job["name"] == "train")
    if train["outcome"] != "succeeded":
        raise world.WorldError(f"the notebook did not run: {train}")
    said = "".join(
        event["output"]["text"]
        for event in server.events(train["id"])
        if event["kind"] == "output" and event["cell"] == 0 and event["output"]["output_type"] == "stream"
    )
    samples = {
        FIRST: stamp(said) - pushed,
        "planned to first cell": stamp(said) - detail["created_at"] / 1000,
        END: detail["finished_at"] / 1000 - pushed,
    }
    if watch.peak:
        samples[MEMORY] = watch.peak / 1024
    return samples


def first_version(repository):
    """The project as the bench wants it: one job, and a first cell that tells the time."""
    (repository.path / ".trainyard.yml").write_text(PIPELINE)
    cell = {"cell_type": "code", "execution_count": None, "id": "stamp", "metadata": {}, "outputs": [], "source": STAMP}
    repository.notebook(NOTEBOOK, lambda cells: cells.insert(0, cell))
    repository.commit("Train on the digits")


def change(repository, number):
    """A commit that makes the notebook mean something new, at no cost when it runs."""
    repository.notebook(NOTEBOOK, lambda cells: cells[0].update(source=[f"# change {number}\n", *STAMP]))
    repository.commit(f"Change {number}")


class Bench:
    """Rounds of all contenders in turn."""

    def __init__(self, program, folder, uv):
        self.program = program
        self.folder = folder
        self.uv = uv
        self.rows = rows.Rows()

    def record(self, case, contender, samples):
        for measure, value in samples.items():
            unit = "MiB" if measure == MEMORY else "s"
            self.rows.add(case, measure, unit, contender, value)
        shown = ", ".join(f"{measure} {value:.2f}" for measure, value in samples.items())
        print(f"  {case}, {contender}: {shown}", file=sys.stderr, flush=True)

    def record_peer(self, case, contender, result):
        self.record(case, contender, dict(zip((FIRST, END, MEMORY), result, strict=True)))

    def round(self, number):
        folder = self.folder / f"round-{number}"
        folder.mkdir()
        repository = world.Repository(folder, world.ROOT / "examples" / "digits")
        first_version(repository)
        peer = Peer(folder, repository, self.uv)
        try:
            with world.Server(self.program, folder) as server:
                server.ready()
                server.post("projects", {"name": "digits", "url": str(repository.remote)})
                self.record("cold", rows.OURS, ours(server, repository))
                self.record_peer("cold", "docker run + pip + nbclient", peer.run(PIP))
                self.record_peer("cold", "docker run + uv + nbclient", peer.run(UV))
                nbclient = peer.make_environment()
                change(repository, number)
                self.record("warm", rows.OURS, ours(server, repository))
                self.record_peer("warm", "docker run + nbclient", peer.run(None))
                self.record("warm", "bare kernel start", {FIRST: peer.kernel()})
        finally:
            peer.clear()
        return nbclient


def engine():
    return subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/bench job", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="rounds of each measure (5)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--program", type=pathlib.Path, metavar="FILE", help="the `trainyard` to measure")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs wants 1 or more")
    if options.program is None or not options.program.is_file():
        parser.error(f"--program: there is no program {options.program}")
    uv = options.program.resolve().parent.parent / "lib" / "trainyard" / "uv"

    with world.temporary_folder("trainyard-bench-") as folder:
        bench = Bench(options.program.resolve(), folder, uv)
        try:
            for number in range(1, options.runs + 1):
                print(f"round {number} of {options.runs}", file=sys.stderr, flush=True)
                nbclient = bench.round(number)
        except (world.WorldError, OSError) as error:
            print(f"bench job: {error}", file=sys.stderr)
            return 1
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Docker {engine()}, nbclient {nbclient}; {options.runs} rounds")
    print(bench.rows.table())
    if options.json:
        bench.rows.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
