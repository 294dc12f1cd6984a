"""a large model from the job's end to the registry, beside `cp` with fsync and `sha256sum`; cut half-way, what travels again

A job without a container leaves a folder of random files as its model. Its agent hashes them and brings them to the server,
both the released program on this machine, with files on its disk. The peer does one after the other: each file is copied and
written through, then all copies are hashed by `sha256sum`. Both find nothing of the files in the memory of the system (as root).

time       from the job's last word to the end of its pipeline; of the peer, both steps
memory     of a process at its peak (VmHWM), MB of 10^6 bytes; `before` is when it waits for work
travelled  over the loopback, MB: all, and after server and agent were killed half-way; `missing` is what the server lacked then
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time

import rows
import world

PEER = "cp + sha256sum"
DOCUMENT = world.ROOT / "docs" / "measured" / "model.md"
MOST_TIME = 1.5
# What was on its way when all was killed travels again: four pieces of 8 MiB at most.
MOST_AGAIN_MB = 4 * 8.4
MOST_GROWTH_MB = 150
PIPELINE = """\
jobs:
  leave:
    command: mv '{source}' model && {cold} date +%s.%N
    timeout: 1h
    model: {{name: large, path: model/}}
"""
COLD = "sync && echo 3 > /proc/sys/vm/drop_caches &&"


class Host:
    """A server and an agent with their data in a folder; a context that ends both."""

    def __init__(self, program, folder):
        self.program, self.folder, self.processes = program, folder, {}
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        (folder / "server.toml").write_text(f'listen = "127.0.0.1:{port}"\ndata = "{folder}/server"\n')
        (folder / "agent.toml").write_text(
            f'data = "{folder}/agent"\n[executors]\ndocker = false\nshell = true\n[disk]\nwatermark = "1GiB"\n'
        )
        self.start("server", "server", "--config", folder / "server.toml")
        world.wait_for("the server", 60, self.answers)
        token = self.post("agents/tokens", {})["token"]
        subprocess.run(
            [program, "agent", "register", self.url, "--config", folder / "agent.toml"],
            env={**os.environ, "TRAINYARD_REGISTRATION": token},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.start_agent()

    def start(self, name, *arguments):
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [self.program, *arguments], cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def start_agent(self):
        self.start("agent", "agent", "--config", self.folder / "agent.toml")

    def again(self):
        """Kills both, and starts them again."""
        self.end(signal.SIGKILL)
        self.start("server", "server", "--config", self.folder / "server.toml")
        world.wait_for("the server", 60, self.answers)
        self.start_agent()

    def end(self, how):
        for process in self.processes.values():
            process.send_signal(how)
        for process in self.processes.values():
            process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.end(signal.SIGTERM)

    def answers(self):
        with contextlib.suppress(OSError):
            return self.get("projects") is not None
        return None

    get = world.Server.get
    post = world.Server.post
    events = world.Server.events

    def memory(self, name, field):
        """In MB."""
        if self.processes[name].poll() is not None:
            raise world.WorldError(f"the {name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")
        status = pathlib.Path(f"/proc/{self.processes[name].pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field))) * 1024 / 1e6

    def kept(self):
        """Bytes of contents that the server has, and of such as are under way."""
        total = 0
        for part in ("blobs", "parts"):
            for path in (self.folder / "server" / part).rglob("*"):
                with contextlib.suppress(OSError):
                    total += path.stat().st_size if path.is_file() else 0
        return total

    def begun(self, job):
        """When the job said its last word, in seconds since 1970."""
        texts = [event["text"] for event in self.events(job) if event.get("stream") == "stdout"]
        return float("".join(texts).split()[-1]) if texts else None


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def made(folder, files, size):
    """A folder of random files."""
    folder.mkdir()
    for number in range(files):
        with open(folder / f"part-{number:04}.bin", "wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))


def cold():
    os.sync()
    if os.geteuid() == 0:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def copied_and_hashed(source, copy):
    """Seconds of the peer."""
    copy.mkdir()
    cold()
    began = time.monotonic()
    for path in sorted(source.iterdir()):
        with open(path, "rb") as here, open(copy / path.name, "wb") as there:
            while os.sendfile(there.fileno(), here.fileno(), None, 1 << 20):
                pass
            os.fsync(there.fileno())
    took = time.monotonic() - began
    cold()
    began = time.monotonic()
    subprocess.run(["sha256sum", *sorted(copy.iterdir())], check=True, stdout=subprocess.DEVNULL)
    took += time.monotonic() - began
    shutil.rmtree(copy)
    return took


def travelled():
    return int(pathlib.Path("/sys/class/net/lo/statistics/rx_bytes").read_text())


def repository(folder, source):
    start = folder / "start"
    start.mkdir()
    text = PIPELINE.format(source=source, cold=COLD if os.geteuid() == 0 else "")
    (start / ".trainyard.yml").write_text(text)
    made = folder / "repository"
    made.mkdir()
    repository = world.Repository(made, start)
    repository.commit("A large model")
    repository.push()
    return repository.remote


def left(host, project):
    """The one job, once its command is over; when that was."""
    host.post("projects", {"name": project, "url": str(host.remote)})

    def look():
        for pipeline in host.get("pipelines?limit=5")["items"]:
            for job in host.get(f"pipelines/{pipeline['id']}")["jobs"]:
                with contextlib.suppress(OSError):
                    if began := host.begun(job["id"]):
                        return pipeline["id"], began
        return None

    return world.wait_for("the job's last word", 900, look)


def ended(host, pipeline):
    """When a pipeline ended."""

    def look():
        detail = host.get(f"pipelines/{pipeline}")
        return detail if detail.get("finished_at") else None

    detail = world.wait_for("the end", 1800, look)
    if detail["state"] != "succeeded":
        raise world.WorldError(json.dumps(detail, indent=1))
    return detail["finished_at"] / 1000


def whole(table, case, program, files, size):
    with world.temporary_folder("trainyard-bench-") as folder:
        source = folder / "source"
        made(source, files, size)
        table.add(case, "time", "s", PEER, copied_and_hashed(source, folder / "copy"))
        with Host(program, folder) as host:
            host.remote = repository(folder, source)
            before = {name: host.memory(name, "VmHWM:") for name in host.processes}
            start = travelled()
            pipeline, began = left(host, "large")
            table.add(case, "time", "s", rows.OURS, ended(host, pipeline) - began)
            table.add(case, "travelled", "MB", rows.OURS, (travelled() - start) / 1e6)
            for name, was in before.items():
                table.add(case, f"memory of the {name}, before", "MB", rows.OURS, was)
                table.add(case, f"memory of the {name}", "MB", rows.OURS, host.memory(name, "VmHWM:"))


def cut(table, case, program, files, size):
    with world.temporary_folder("trainyard-bench-") as folder:
        source = folder / "source"
        made(source, files, size)
        with Host(program, folder) as host:
            host.remote = repository(folder, source)
            pipeline, _ = left(host, "large")
            all_of_it = files * size
            world.wait_for("half of it", 900, lambda: host.kept() > all_of_it / 2 or None)
            host.end(signal.SIGKILL)
            missing = all_of_it - host.kept()
            start = travelled()
            host.again()
            ended(host, pipeline)
            table.add(case, "missing", "MB", rows.OURS, missing / 1e6)
            table.add(case, "travelled", "MB", rows.OURS, (travelled() - start) / 1e6)


def verdicts(table):
    """What was promised, and what came."""
    lines, good = [], True

    def say(held, words):
        nonlocal good
        good &= held
        lines.append(f"{'held' if held else 'NOT HELD':9} {words}")

    found = {(row["case"], row["measure"]): row for row in table.rows()}
    for (case, measure), row in found.items():
        ours = row["ours"]["median"]
        if measure == "time":
            ratio = ours / row["peers"][PEER]["median"]
            say(ratio <= MOST_TIME, f"{case}, time: {ratio:.2f} of the peer's, at most {MOST_TIME}")
        elif measure.startswith("memory") and not measure.endswith("before"):
            grown = ours - found[case, f"{measure}, before"]["ours"]["median"]
            say(grown <= MOST_GROWTH_MB, f"{case}, {measure}: grew by {grown:.0f} MB, at most {MOST_GROWTH_MB}")
        elif measure == "missing":
            again = found[case, "travelled"]["ours"]["median"] - ours
            say(again <= MOST_AGAIN_MB, f"{case}: {again:.0f} MB travelled twice, at most {MOST_AGAIN_MB:.0f}")
    return "\n".join(lines), good


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/bench model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds (3)")
    parser.add_argument("--files", type=int, default=1000, metavar="N", help="files of the model (1000)")
    parser.add_argument("--mib", type=int, default=10, metavar="N", help="MiB of each (10)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(world.ROOT)}")
    parser.add_argument("--check", action="store_true", help="fail where a promise is not held")
    parser.add_argument("--program", type=pathlib.Path, required=True, metavar="FILE", help="the `trainyard` to measure")
    options = parser.parse_args()
    table = rows.Rows()
    size = options.mib << 20
    case = f"{options.files} files of {options.mib} MiB"
    program = options.program.resolve()
    for number in range(options.runs):
        print(f"  round {number + 1}: whole", file=sys.stderr, flush=True)
        whole(table, case, program, options.files, size)
        print(f"  round {number + 1}: cut", file=sys.stderr, flush=True)
        cut(table, f"{case}, cut", program, options.files, size)
    lines, good = verdicts(table)
    text = f"{platform.machine()}, {os.cpu_count()} CPUs; {options.runs} rounds\n{table.table()}\n\n{lines}"
    print(text)
    if options.json:
        table.write(options.json)
    if options.write:
        DOCUMENT.write_text(
            "# A large model on its way to the registry\n\n"
            "Printed by `scripts/bench model`: the released server and agent, with files, on one machine. The time begins with the last word\n"
            "of the job, whose files no cache has, and ends with its pipeline; the peer copies each file with fsync, and then hashes all copies.\n\n"
            f"```text\n{text}\n```\n"
        )
    return 0 if good or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
