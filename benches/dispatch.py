"""from a queued job to the order at an idle agent, with 100 agents polling, also behind 100,000 queued jobs; the server's CPU with 1,000 idle agents

The server is the released program, with SQLite, on this machine. The agents are simulated: each has a connection and a
held poll of 20 s as real ones have, a host of eight GPUs, and reports what it got as done at once. A job is asked for
again and again by the public API; it is queued from the moment that its row names.

order       milliseconds from the job's `queued_at` to the order at an agent
server CPU  of one core, in percent, while nothing is queued and all agents poll
memory      of the server at its peak (VmHWM), MB of 10^6 bytes

Behind a long queue: so many older jobs of the same project wait before the job, and none of them can start: they want eight GPUs,
and of each host one is in use by a person. They are written into the server's database, in 50 pipelines, with 300 demands.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.parse

import rows
import world

ORDER, ORDER_P99, CPU, MEMORY = "order, median", "order, p99", "server CPU", "memory"
MOST_ORDER_MS, MOST_BEHIND_MS, MOST_CPU, MOST_MB = 20.0, 250.0, 5.0, 500.0
DOCUMENT = world.ROOT / "docs" / "measured" / "dispatch.md"
PIPELINE = "jobs:\n  quick: {command: 'true', reuse: false, resources: {cpus: 1, memory: 1GiB}}\n"
HOLD_MS = 20_000
WARM_UP = 20
# Of the long queue.
PIPELINES, DEMANDS, NAMES = 50, 300, 2_000


class Server(world.Server):
    """A `trainyard server` on a free port; its agents are ours."""

    def __init__(self, program, folder, more=""):
        self.program, self.folder, self.log = program, folder, folder / "server.log"
        settings = folder / "server.toml"
        settings.write_text(f'listen = "127.0.0.1:0"\ndata = "{folder / "data"}"\n{more}')
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [program, "server", "--json", "--config", settings], cwd=folder, stdout=subprocess.PIPE, stderr=log
            )
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(30)
            raise world.WorldError(f"`trainyard server` did not start:\n{self.words()}")
        self.url = json.loads(line)["url"]

    def queued(self):
        """When each job was queued, in milliseconds since 1970; the API does not tell it."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'data' / 'trainyard.db'}?mode=ro", uri=True)) as rows:
            return dict(rows.execute("SELECT id, queued_at FROM jobs"))

    def fill(self, count):
        """Puts so many jobs that cannot start before all others: copies of one that is there."""
        with contextlib.closing(sqlite3.connect(self.folder / "data" / "trainyard.db", timeout=60)) as database, database:
            database.row_factory = sqlite3.Row
            pipeline = dict(database.execute("SELECT * FROM pipelines ORDER BY id LIMIT 1").fetchone())
            job = dict(database.execute("SELECT * FROM jobs ORDER BY id LIMIT 1").fetchone())
            for number in range(PIPELINES):
                # Of other branches: a newer commit of its own would cancel what waits of an older one.
                made = {"reference": f"refs/heads/long-{number}", "trigger_key": f"long-{number}", "number": 1_000_000 + number}
                made = pipeline | made | {"id": f"{number:026}"}
                put(database, "pipelines", [made])
            put(database, "jobs", (waiting(job, number) for number in range(count)))

    def peak(self):
        """Its memory, in bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024

    def cpu_seconds(self):
        """What it used so far, all threads."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def put(database, table, made):
    """Inserts rows, all with the same columns."""
    made = iter(made)
    first = next(made)
    statement = f"INSERT INTO {table} ({', '.join(first)}) VALUES ({', '.join('?' * len(first))})"  # noqa: S608
    database.executemany(statement, (tuple(row.values()) for row in itertools.chain([first], made)))


def waiting(job, number):
    """The row of a queued job that no host can start now."""
    demand = number % DEMANDS
    resources = {"cpu_millis": 1_000 * (1 + demand % 15), "memory": (1 + demand // 15) << 30, "gpus": 8}
    spec = json.loads(job["spec"]) | {"name": f"sweep (seed={number % NAMES})", "resources": resources}
    wants = {"resources": resources, "runs_on": [], "volumes": [], "project": "", "trust": "trusted"}
    return job | {
        "id": f"{number:026}",
        "pipeline": f"{number // NAMES % PIPELINES:026}",
        "name": spec["name"],
        "job_key": None,
        "spec": json.dumps(spec),
        "state": '{"state":"queued"}',
        "word": "queued",
        "version": 1,
        "generation": 0,
        "finished_at": None,
        "demand": json.dumps(wants),
    }


def inventory(name):
    gpus = [
        {
            "uuid": f"GPU-{name}-{index}",
            "index": index,
            "model": "NVIDIA A100-SXM4-80GB",
            "memory": 80 << 30,
            "compute_capability": "8.0",
            "health": {"health": "healthy"} if index else {"health": "in_use_outside", "by": "python3 of ada"},
        }
        for index in range(8)
    ]
    return {
        "host": name,
        "platform": "linux/amd64",
        "cpu_model": "simulated",
        "cpu_millis": 64_000,
        "memory": 512 << 30,
        "disk": 4 << 40,
        "gpus": gpus,
    }


class Agent:
    """One simulated agent: a connection, and one call at a time."""

    def __init__(self, address, name, orders):
        self.address, self.name, self.orders = address, name, orders
        self.inventory = inventory(name)
        self.hash = hashlib.sha256(json.dumps(self.inventory).encode()).hexdigest()
        self.secret = ""
        self.reader = self.writer = None

    async def call(self, path, body):
        """The JSON answer to a POST."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.address[0]}:{self.address[1]}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {self.secret}\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        self.writer.write(head.encode() + data)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
        content = await self.reader.readexactly(length)
        if " 200 " not in lines[0]:
            raise world.WorldError(f"{path}: {lines[0]} {content.decode(errors='replace')}")
        return json.loads(content)

    async def register(self, token):
        body = {"protocol": 1, "token": token, "name": self.name, "version": "bench", "inventory": self.inventory}
        self.secret = (await self.call("/agent/v1/register", body))["secret"]

    async def poll(self, attempts, wait):
        body = {
            "protocol": 1,
            "version": "bench",
            "inventory_hash": self.hash,
            "inventory": None,
            "attempts": attempts,
            "wait": wait,
            "accepting": True,
        }
        answer = await self.call("/agent/v1/poll", body)
        if answer.get("want_inventory"):
            body["inventory"] = self.inventory
            body["wait"] = 0
            answer = await self.call("/agent/v1/poll", body)
        return answer

    async def work(self):
        """Polls for ever, and does what it is told at once."""
        while True:
            answer = await self.poll([], HOLD_MS)
            got = time.time()
            for order in answer.get("start", []):
                await self.do(order, got)

    async def do(self, order, got):
        now = int(time.time() * 1000)
        status = {"attempt": order["attempt"], "generation": order["generation"], "started_at": now}
        await self.poll([status | {"phase": "run", "released": False}], 0)
        path = f"/agent/v1/attempts/{order['attempt']}/finish?generation={order['generation']}"
        await self.call(path, {"outcome": {"outcome": "succeeded"}, "started_at": now, "finished_at": now})
        await self.poll([status | {"phase": "finished", "released": True}], 0)
        self.orders.put_nowait((order["job"], got))


async def fleet(server, count):
    """So many registered agents, and the queue of what they got."""
    orders = asyncio.Queue()
    parts = urllib.parse.urlsplit(server.url)
    agents = [Agent((parts.hostname, parts.port), f"agent-{n:04}", orders) for n in range(count)]
    for agent in agents:
        token = await asyncio.to_thread(server.post, "agents/tokens", {})
        await agent.register(token["token"])
    return agents, orders


@contextlib.asynccontextmanager
async def working(agents):
    """All agents poll until the block ends; an agent that fails ends it."""
    tasks = [asyncio.create_task(agent.work()) for agent in agents]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def latencies(server, repository, count, jobs, before=0):
    """Milliseconds of each job, from queued to the order, behind so many that cannot start."""
    agents, orders = await fleet(server, count)
    async with working(agents):
        await asyncio.to_thread(server.post, "projects", {"name": "quick", "url": str(repository)})
        job, _ = await asyncio.wait_for(orders.get(), 60)
        if before:
            await asyncio.to_thread(server.fill, before)
        seen = []
        for _ in range(jobs + WARM_UP):
            await asyncio.to_thread(server.post, f"jobs/{job}/retry", {})
            job, got = await asyncio.wait_for(orders.get(), 60)
            seen.append((job, got))
    queued = server.queued()
    return [got * 1000 - queued[job] for job, got in seen[WARM_UP:]]


async def idle_cpu(server, count, seconds):
    """Percent of a core that the server uses while so many agents poll."""
    agents, _ = await fleet(server, count)
    async with working(agents):
        # The first polls all come at once: they spread out as they are answered.
        await asyncio.sleep(HOLD_MS / 1000 + 5)
        start, before = time.monotonic(), server.cpu_seconds()
        await asyncio.sleep(seconds)
        return (server.cpu_seconds() - before) / (time.monotonic() - start) * 100


def bare(folder):
    """A repository with one quick job."""
    source = folder / "source"
    source.mkdir()
    (source / ".trainyard.yml").write_text(PIPELINE)
    repository = world.Repository(folder / "made", source)
    repository.commit("A quick job")
    repository.push()
    return repository.remote


def p99(values):
    return sorted(values)[min(len(values) - 1, round(len(values) * 0.99))]


def add_orders(table, case, took):
    table.add(case, ORDER, "ms", rows.OURS, statistics.median(took))
    table.add(case, ORDER_P99, "ms", rows.OURS, p99(took))


def collect(options):
    table = rows.Rows()
    for number in range(options.runs):
        with world.temporary_folder("trainyard-bench-") as folder:
            (folder / "made").mkdir()
            repository = bare(folder)
            with Server(options.program, folder) as server:
                took = asyncio.run(latencies(server, repository, options.agents, options.jobs))
        add_orders(table, f"{options.agents} agents", took)
        with world.temporary_folder("trainyard-bench-") as folder:
            (folder / "made").mkdir()
            repository = bare(folder)
            with Server(options.program, folder) as server:
                few = max(options.jobs // 4, 1)
                behind = asyncio.run(latencies(server, repository, options.agents, few, options.queued))
                peak = server.peak()
        case = f"{options.agents} agents, {options.queued // 1000}k jobs wait"
        add_orders(table, case, behind)
        table.add(case, MEMORY, "MB", rows.OURS, peak / 1e6)
        with world.temporary_folder("trainyard-bench-") as folder, Server(options.program, folder) as server:
            used = asyncio.run(idle_cpu(server, options.idle, options.seconds))
        table.add(f"{options.idle} agents, idle", CPU, "%", rows.OURS, used)
        words = f"{statistics.median(took):.1f} ms, behind a long queue {statistics.median(behind):.1f} ms, {used:.1f} %"
        print(f"  round {number + 1}: {words}", file=sys.stderr, flush=True)
    return table


def verdicts(table):
    limits = {ORDER: MOST_ORDER_MS, CPU: MOST_CPU, MEMORY: MOST_MB}
    lines, good = [], True
    for row in table.rows():
        most = limits.get(row["measure"])
        if row["measure"] == ORDER and row["case"].endswith("wait"):
            most = MOST_BEHIND_MS
        if most is not None:
            value = row["ours"]["median"]
            good = good and value < most
            word = "held" if value < most else "NOT HELD"
            lines.append(f"{word:9} {row['case']}, {row['measure']}: {value:.1f} {row['unit']} of less than {most:.0f}")
    return "\n".join(lines), good


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench dispatch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds (3)")
    parser.add_argument("--agents", type=int, default=100, metavar="N", help="agents that poll while jobs come (100)")
    parser.add_argument("--jobs", type=int, default=200, metavar="N", help="jobs of a round (200)")
    parser.add_argument("--queued", type=int, default=100_000, metavar="N", help="jobs that wait before, of the long queue (100000)")
    parser.add_argument("--idle", type=int, default=1000, metavar="N", help="agents that poll while nothing comes (1000)")
    parser.add_argument("--seconds", type=int, default=40, metavar="N", help="how long that is measured (40)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(world.ROOT)}")
    parser.add_argument("--check", action="store_true", help="fail where a promise is not held")
    parser.add_argument("--program", type=pathlib.Path, metavar="FILE", help="the `trainyard` to measure")
    options = parser.parse_args()
    if not options.program:
        parser.error("--program is missing")
    options.program = options.program.absolute()
    return options


def main():
    options = arguments()
    table = collect(options)
    if options.json:
        table.write(options.json)
    lines, good = verdicts(table)
    head = f"{platform.machine()}, {os.cpu_count()} CPUs; {options.runs} rounds of {options.jobs} jobs; agents simulated here too"
    text = f"{head}\n{table.table()}\n\n{lines}"
    print(text)
    if options.write:
        DOCUMENT.write_text(
            "# From a queued job to its agent\n\n"
            "Printed by `scripts/bench dispatch`: the released server with SQLite and simulated agents, all on one machine. An order's time\n"
            "begins with the `queued_at` of the job's row, before that row is written, and ends when the agent has read the answer to its poll.\n\n"
            f"```text\n{text}\n```\n"
        )
    return 1 if options.check and not good else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
