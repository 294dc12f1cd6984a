"""MLflow's API beside the stock server: start, logging, search, curves, files; wall, CPU and memory

Both serve SQLite and a folder on this machine, one worker each, one after the other in every round, and are asked the
same over one connection that stays open, by a client that costs neither of them anything: plain HTTP, prepared bodies.

start         from the process to the first answer of /health
log_metric    one point a call
log_batch     1,000 points a call, of ten metrics
search        the first 100 of 10,000 runs, each with 5 metrics, 5 params and 5 tags
filter        of those the best 10 by a metric, where a param and another metric are as asked
history       10,000 points of one metric, whole
upload        1 GiB of random bytes as one file
download      the same
wall          milliseconds a call
cpu           milliseconds of the server's processes a call
memory        MiB of all its processes at the end of the round (PSS)
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import time

import rows
import world

PEER = "mlflow"
RUNS = 10_000
POINTS = 10_000
FILE_BYTES = 1 << 30
# The most that ours may be of the peer's: (case, measure) -> ratio.
PROMISES = {
    ("start", "wall"): 1 / 50,
    ("log_metric", "cpu"): 1 / 10,
    ("log_batch", "wall"): 1 / 10,
    ("search", "wall"): 1 / 20,
    ("filter", "wall"): 1 / 20,
    ("history", "wall"): 1 / 10,
    ("upload", "wall"): 1 / 2,
    ("download", "wall"): 1 / 2,
    ("memory", "memory"): 1 / 20,
}
TICKS = os.sysconf("SC_CLK_TCK")
API = "/api/2.0/mlflow"


def tree(pid):
    """A process and all that it started."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        for task in pathlib.Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += [int(child) for child in task.read_text().split()]
    return found


class Server:
    """One of the two, with its data in a folder; a context that ends it."""

    def __init__(self, name, command, folder, environment=()):
        self.name, self.folder = name, folder
        folder.mkdir(parents=True)
        self.log = folder / "log"
        began = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | dict(environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.address = ("127.0.0.1", int(dict(environment)["BENCH_PORT"]))
        self.connection = None
        world.wait_for(f"{name} is ready", 180, self.ready, pause=0.002)
        self.start_ms = (time.monotonic() - began) * 1000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)

    def ready(self):
        if self.process.poll() is not None:
            raise world.WorldError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")
        try:
            return True if self.call("GET", "/health", raw=True) == b"OK" else None
        except (OSError, http.client.HTTPException):
            self.connection = None
            return None

    def call(self, method, path, body=None, raw=False):
        """One call over the connection that stays open."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(*self.address, timeout=300)
        headers = {"content-type": "application/json"} if isinstance(body, (bytes, str)) else {}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise world.WorldError(f"{self.name}: {method} {path}: {answer.status} {content[:500]!r}")
        return content if raw else json.loads(content or b"{}")

    def post(self, call, body):
        return self.call("POST", f"{API}/{call}", json.dumps(body))

    def cpu_ms(self):
        """CPU of all its processes so far."""
        total = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
        return total * 1000 / TICKS

    def memory_mib(self):
        total = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def run(self, experiment="0"):
        made = self.post("runs/create", {"experiment_id": experiment, "start_time": 1, "run_name": "bench"})
        return made["run"]["info"]["run_id"]


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ours(program, folder):
    port = free_port()
    folder.parent.mkdir(parents=True, exist_ok=True)
    settings = folder.parent / "server.toml"
    settings.write_text(f'listen = "127.0.0.1:{port}"\ndata = "{folder}/data"\n')
    return Server(rows.OURS, [program, "server", "--config", settings], folder, {"BENCH_PORT": str(port)}.items())


def stock(folder):
    port = free_port()
    program = world.ROOT / ".trainyard" / "mlflow" / "bin" / "mlflow"
    command = [program, "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts"]
    settings = {"BENCH_PORT": str(port), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return Server(PEER, command, folder, settings.items())


def measured(table, server, case, count, do):
    """Wall and CPU of a call, as means of so many."""
    cpu, began = server.cpu_ms(), time.monotonic()
    for number in range(count):
        do(number)
    wall = (time.monotonic() - began) * 1000
    table.add(case, "wall", "ms", server.name, wall / count)
    table.add(case, "cpu", "ms", server.name, (server.cpu_ms() - cpu) / count)


def logging(table, server, quick):
    run = server.run()

    def point(number):
        server.post(
            "runs/log-metric", {"run_id": run, "key": f"m{number % 10}", "value": 0.5, "timestamp": number, "step": number}
        )

    measured(table, server, "log_metric", 50 if quick else 500, point)

    def batch(number):
        metrics = [
            {"key": f"b{n % 10}", "value": n / 7, "timestamp": number * 1000 + n, "step": number * 1000 + n}
            for n in range(1000)
        ]
        server.post("runs/log-batch", {"run_id": run, "metrics": metrics})

    measured(table, server, "log_batch", 3 if quick else 10, batch)


def history(table, server, quick):
    run = server.run()
    for number in range(POINTS // 1000):
        metrics = [
            {"key": "curve", "value": n / 7, "timestamp": number * 1000 + n, "step": number * 1000 + n} for n in range(1000)
        ]
        server.post("runs/log-batch", {"run_id": run, "metrics": metrics})

    def read(_):
        found = server.call("GET", f"{API}/metrics/get-history?run_id={run}&metric_key=curve")
        if len(found["metrics"]) != POINTS:
            raise world.WorldError(f"{server.name}: {len(found['metrics'])} points of {POINTS}")

    measured(table, server, "history", 1 if quick else 5, read)


def generated(number):
    """The same run on both: metrics, params and tags."""
    chance = random.Random(number)
    return (
        {f"m{n}": chance.random() for n in range(5)},
        {f"p{n}": str(chance.randrange(10)) for n in range(5)},
        {f"t{n}": f"v{chance.randrange(100)}" for n in range(5)},
    )


def fill_ours(server, experiment):
    for number in range(RUNS):
        metrics, params, tags = generated(number)
        made = server.post("runs/create", {"experiment_id": experiment, "start_time": number + 1, "run_name": f"r{number}"})
        body = {
            "run_id": made["run"]["info"]["run_id"],
            "metrics": [{"key": k, "value": v, "timestamp": 1, "step": 0} for k, v in metrics.items()],
            "params": [{"key": k, "value": v} for k, v in params.items()],
            "tags": [{"key": k, "value": v} for k, v in tags.items()],
        }
        server.post("runs/log-batch", body)


def fill_stock(server, experiment):
    """Its own calls would take a quarter of an hour: the rows are written as it writes them."""
    database = sqlite3.connect(server.folder / "mlflow.db", timeout=60)
    with contextlib.closing(database), database:
        for number in range(RUNS):
            metrics, params, tags = generated(number)
            run = f"{number:032x}"
            database.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,"
                " source_version, lifecycle_stage, artifact_uri, experiment_id)"
                " VALUES (?, ?, 'UNKNOWN', '', '', '', 'RUNNING', ?, '', 'active', ?, ?)",
                (run, f"r{number}", number + 1, f"mlflow-artifacts:/{experiment}/{run}/artifacts", int(experiment)),
            )
            database.executemany(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, 1, 0, 0, ?)",
                [(k, v, run) for k, v in metrics.items()],
            )
            database.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", [(k, v, run) for k, v in params.items()]
            )
            every = tags | {"mlflow.runName": f"r{number}"}
            database.executemany(
                "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", [(k, v, run) for k, v in every.items()]
            )


def searching(table, server, quick):
    experiment = server.post("experiments/create", {"name": "searched"})["experiment_id"]
    (fill_ours if server.name == rows.OURS else fill_stock)(server, experiment)
    best = {"filter": "metrics.m1 > 0.5 AND params.p1 = '3'", "order_by": ["metrics.m0 DESC"], "max_results": 10}
    answers = []
    for case, ask in [("search", {"max_results": 100}), ("filter", best)]:
        body = {"experiment_ids": [experiment]} | ask

        def search(_, body=body):
            found = server.post("runs/search", body)["runs"]
            names = [run["info"]["run_name"] for run in found]
            if len(names) != body["max_results"]:
                raise world.WorldError(f"{server.name}: {len(names)} runs of {body['max_results']}")
            return names

        answers.append(search(0))
        measured(table, server, case, 3 if quick else 10, search)
    return answers


def random_file(path, size):
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def files(table, server, source):
    run = server.run()
    size = source.stat().st_size
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/random"

    def up(_):
        with open(source, "rb") as file:
            server.connection.request("PUT", path, file, {"content-length": str(size)})
            answer = server.connection.getresponse()
            if answer.status != 200:
                raise world.WorldError(f"{server.name}: {answer.status} {answer.read()[:500]!r}")
            answer.read()

    def down(_):
        server.connection.request("GET", path)
        answer = server.connection.getresponse()
        read = 0
        while piece := answer.read(1 << 20):
            read += len(piece)
        if read != size:
            raise world.WorldError(f"{server.name}: {read} of {size} bytes")

    server.connection.blocksize = 1 << 20
    measured(table, server, "upload", 1, up)
    measured(table, server, "download", 1, down)


def one_round(table, make, folder, quick):
    """All cases of one server; what the searches found."""
    source = folder / "random"
    random_file(source, FILE_BYTES // 64 if quick else FILE_BYTES)
    with make(folder / "server") as server:
        table.add("start", "wall", "ms", server.name, server.start_ms)
        logging(table, server, quick)
        history(table, server, quick)
        found = searching(table, server, quick)
        files(table, server, source)
        table.add("memory", "memory", "MiB", server.name, server.memory_mib())
    return found


def judge(table):
    """What was promised, and what came."""
    kept = True
    for row in table.rows():
        most = PROMISES.get((row["case"], row["measure"]))
        peer = row["peers"].get(PEER)
        if most is None or not peer or not row["ours"]:
            continue
        ratio = row["ours"]["median"] / peer["median"]
        word = "kept" if ratio <= most else "NOT KEPT"
        kept &= ratio <= most
        print(f"{row['case']}, {row['measure']}: 1/{1 / ratio:.1f} of the peer's, promised 1/{1 / most:.0f}: {word}")
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="rounds of each measure (3)")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows here")
    parser.add_argument("--program", type=pathlib.Path, required=True, help="the trainyard to measure")
    parser.add_argument("--quick", action="store_true", help="few calls and a small file: whether it works, not how fast")
    arguments = parser.parse_args()
    table = rows.Rows()
    program = arguments.program.resolve()
    for number in range(arguments.runs):
        found = []
        for name, make in [(PEER, stock), (rows.OURS, lambda folder: ours(program, folder))]:
            print(f"round {number + 1}: {name}", file=sys.stderr)
            with world.temporary_folder(f"trainyard-bench-{name}-") as folder:
                found.append(one_round(table, make, folder, arguments.quick))
        if found[0] != found[1]:
            raise world.WorldError("the searches found different runs")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.runs} rounds\n")
    print(table.table())
    print()
    if arguments.json:
        table.write(arguments.json)
    if not judge(table) and not arguments.quick:
        sys.exit(1)


main()
