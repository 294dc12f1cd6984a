"""what a forge waits for its webhook's answer, 500 a second; from a webhook to the queued job

The server is the released program, with SQLite, on this machine. The bodies are GitHub's own example of a push, signed; each
delivery has an id of its own. They are sent at the times of a plan, whether those before were answered or not, over
connections that stay open: an answer's time begins with the time of the plan, so that a server that falls behind cannot hide.

answer      milliseconds from the time of the plan to the answer
queued      milliseconds from sending a webhook to the job's `queued_at`, for a commit that was pushed just before
fetch       milliseconds of that in `git fetch`
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import platform
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.parse

import rows
import world
from dispatch import Server, p99

ANSWER, ANSWER_P99, LOST, MEMORY = "answer, median", "answer, p99", "not stored", "server memory, peak"
QUEUED, FETCH = "queued", "of it in the fetch"
MOST_ANSWER_MS = 50.0
# Files, notebooks among them, and the most milliseconds from the webhook to the job, without the fetch.
REPOSITORIES = [(5_000, 50, 30.0), (100_000, 1_000, 300.0)]
DOCUMENT = world.ROOT / "docs" / "measured" / "webhooks.md"
BODY = world.ROOT / "tests" / "data" / "forges" / "github" / "push.branch-new-1commit.json"
PIPELINE = "jobs:\n  train: {command: python train.py, deps: [train.py, 'src/**'], resources: {cpus: 1, memory: 1GiB}}\n"
SECRET = "of the bench"
CONNECTIONS = 64
SETTINGS = 'poll_interval_local = "1h"\n'


class Hooked(Server):
    """A server that looks at a remote only when a webhook says so."""

    def __init__(self, program, folder):
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        super().__init__(program, folder, SETTINGS)

    def watch(self, name, url):
        wanted = {"name": name, "url": str(url), "forge": "github", "repository": "Codertocat/Hello-World"}
        wanted |= {"api": "https://api.github.com", "webhook_secret": f"file:{self.secret}"}
        return self.post("projects", wanted)

    def rows(self, sql, *values):
        path = f"file:{self.folder / 'data' / 'trainyard.db'}?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as database:
            return database.execute(sql, values).fetchall()

    def peak_memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024

    def fetches(self):
        """Milliseconds of each fetch so far, as the log says."""
        return [int(took) for took in re.findall(r"took_ms\D+(\d+)", self.log.read_text())]


class Sender:
    """One connection to a hook, which stays open."""

    def __init__(self, url, hook):
        parts = urllib.parse.urlsplit(url)
        self.address, self.hook = (parts.hostname, parts.port), hook
        self.reader = self.writer = None
        self.body = BODY.read_bytes()
        self.signature = hmac.new(SECRET.encode(), self.body, hashlib.sha256).hexdigest()

    async def send(self, delivery):
        """The status of the answer."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        head = (
            f"POST /hooks/{self.hook} HTTP/1.1\r\nhost: {self.address[0]}:{self.address[1]}\r\n"
            f"content-type: application/json\r\nx-github-event: push\r\nx-github-delivery: {delivery}\r\n"
            f"x-hub-signature-256: sha256={self.signature}\r\ncontent-length: {len(self.body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + self.body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
        await self.reader.readexactly(length)
        return int(lines[0].split()[1])


async def storm(server, rate, seconds):
    """Milliseconds of each answer."""
    free = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(Sender(server.url, "storm"))
    start = time.monotonic() + 0.1

    async def one(number):
        planned = start + number / rate
        await asyncio.sleep(planned - time.monotonic())
        sender = await free.get()
        status = await sender.send(f"delivery-{number}")
        took = (time.monotonic() - planned) * 1000
        free.put_nowait(sender)
        if status != 202:
            raise world.WorldError(f"a webhook was answered {status}")
        return took

    return await asyncio.gather(*(one(number) for number in range(rate * seconds)))


def git(folder, *arguments, data=None):
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | world.GIT, input=data, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def repository(folder, files, notebooks):
    """A bare repository with so many files, made by git alone: nothing is checked out."""
    remote = folder / f"{files}.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(remote))
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": ["x = 1"]}
    notebook = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    contents = {".trainyard.yml": PIPELINE, "train.py": "print(0)\n"}
    contents |= {f"notebooks/{n // 100}/{n}.ipynb": notebook.replace("x = 1", f"x = {n}") for n in range(notebooks)}
    contents |= {f"src/{n // 200}/{n}.py": f"value = {n}\n" for n in range(files - notebooks - 2)}
    stream = [f"commit refs/heads/main\ncommitter a <a@example.org> {int(time.time())} +0000\ndata 1\na\n"]
    stream += [f"M 100644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in contents.items()]
    git(remote, "fast-import", "--quiet", data="".join(stream).encode())
    return remote


def push(remote, number):
    """A commit that changes one file of the job; gives its id."""
    parent = git(remote, "rev-parse", "refs/heads/main")
    text = f"print({number})\n"
    stream = (
        f"commit refs/heads/main\ncommitter a <a@example.org> {int(time.time())} +0000\ndata 1\na\n"
        f"from {parent}\nM 100644 inline train.py\ndata {len(text)}\n{text}\n"
    )
    git(remote, "fast-import", "--quiet", data=stream.encode())
    return git(remote, "rev-parse", "refs/heads/main")


def job_of(server, commit):
    sql = "SELECT jobs.queued_at FROM jobs JOIN pipelines ON pipelines.id = jobs.pipeline WHERE pipelines.commit_id = ?"
    found = server.rows(sql, commit)
    return found[0][0] if found and found[0][0] else None


async def queued(server, name, remote, commits):
    """Milliseconds from each webhook to its job, and those of its fetch."""
    sender, took = Sender(server.url, name), []
    for number in range(commits + 1):
        commit = await asyncio.to_thread(push, remote, number)
        before = len(server.fetches())
        sent = time.time() * 1000
        await sender.send(f"{name}-{number}")
        at = await asyncio.to_thread(world.wait_for, "the job", 60, lambda: job_of(server, commit))
        took.append((at - sent, sum(server.fetches()[before:])))
    # The first one finds cold caches.
    return took[1:]


def collect(options):
    table = rows.Rows()
    for number in range(options.runs):
        case = f"{options.rate} a second for {options.seconds} s"
        with world.temporary_folder("trainyard-bench-") as folder:
            remote = repository(folder, 3, 0)
            with Hooked(options.program, folder) as server:
                server.watch("storm", remote)
                took = asyncio.run(storm(server, options.rate, options.seconds))
                stored = server.rows("SELECT COUNT(*) FROM deliveries")[0][0]
                table.add(case, ANSWER, "ms", rows.OURS, statistics.median(took))
                table.add(case, ANSWER_P99, "ms", rows.OURS, p99(took))
                table.add(case, LOST, "webhooks", rows.OURS, len(took) - stored)
                table.add(case, MEMORY, "MiB", rows.OURS, server.peak_memory())
        print(f"  round {number + 1}: {p99(took):.1f} ms, {stored} stored", file=sys.stderr, flush=True)
    with world.temporary_folder("trainyard-bench-") as folder:
        made = [(files, notebooks, repository(folder, files, notebooks)) for files, notebooks, _ in REPOSITORIES]
        with Hooked(options.program, folder) as server:
            for files, notebooks, remote in made:
                name = f"r{files}"
                server.watch(name, remote)
                first = git(remote, "rev-parse", "refs/heads/main")
                world.wait_for("the first look", 120, lambda commit=first: job_of(server, commit))
                for took, fetch in asyncio.run(queued(server, name, remote, options.commits)):
                    case = f"{files} files, {notebooks} notebooks"
                    table.add(case, QUEUED, "ms", rows.OURS, took)
                    table.add(case, FETCH, "ms", rows.OURS, fetch)
                print(f"  {files} files: done", file=sys.stderr, flush=True)
    return table


def verdicts(table):
    lines, good = [], True
    seen = {(row["case"], row["measure"]): row["ours"]["median"] for row in table.rows()}

    def judge(text, value, most, unit):
        nonlocal good
        held = value < most if most else value == 0
        good = good and held
        limit = f"of less than {most:.0f}" if most else "of 0"
        lines.append(f"{'held' if held else 'NOT HELD':9} {text}: {value:.1f} {unit} {limit}")

    for (case, measure), value in seen.items():
        if measure == ANSWER_P99:
            judge(f"{case}, {measure}", value, MOST_ANSWER_MS, "ms")
        elif measure == LOST:
            judge(f"{case}, {measure}", value, None, "webhooks")
    for files, notebooks, most in REPOSITORIES:
        case = f"{files} files, {notebooks} notebooks"
        judge(f"{case}, queued without the fetch", seen[case, QUEUED] - seen[case, FETCH], most, "ms")
    return "\n".join(lines), good


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench webhooks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds of the storm (3)")
    parser.add_argument("--rate", type=int, default=500, metavar="N", help="webhooks a second (500)")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long (60)")
    parser.add_argument("--commits", type=int, default=20, metavar="N", help="commits of each repository (20)")
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
    head = f"{platform.machine()}, {os.cpu_count()} CPUs; {options.runs} rounds; the sender is here too"
    text = f"{head}\n{table.table()}\n\n{lines}"
    print(text)
    if options.write:
        DOCUMENT.write_text(
            "# What a forge waits for, and a commit\n\n"
            "Printed by `scripts/bench webhooks`: the released server with SQLite, and the sender, on one machine.\n\n"
            f"```text\n{text}\n```\n"
        )
    return 1 if options.check and not good else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
