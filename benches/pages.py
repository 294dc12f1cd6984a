"""Pages of the registry with 10,000 runs of 20 metrics, 20 params and 22 tags each: wall of each page, warm

The runs are logged as clients do; the pages are then asked for over one connection that stays open. There is no peer: pages
of others need a browser to be drawn.

experiments   the list, 60 of them
runs          the first page of an experiment's table
next          a page from the middle
filter        runs by a metric and a param
sort          runs by a metric
columns       30 columns
run           a run with 20 curves of 1,000 points
long          a curve of a million points
compare       8 runs, 20 curves each
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time
import urllib.parse

import registry
import rows

RUNS = 10_000
NAMES = 20
POINTS = 1_000
LONG = 1_000_000
# The most that a page may take, in milliseconds, but for the one of the long curve.
PROMISE = 100


def fill(server, quick):
    """An experiment with many runs, the last eight with curves; gives the runs that are looked at, and the one with the long
    curve."""
    count = RUNS // 10 if quick else RUNS
    chance = random.Random(1)
    for number in range(60):
        server.post("experiments/create", {"name": f"experiment {number}"})
    experiment = server.post("experiments/create", {"name": "many runs"})["experiment_id"]
    runs = []
    for number in range(count):
        made = server.post("runs/create", {"experiment_id": experiment, "start_time": number + 1, "run_name": f"run {number}"})
        runs.append(made["run"]["info"]["run_id"])
        body = {
            "run_id": runs[-1],
            "metrics": [
                {"key": f"metric {n:02}", "value": chance.random(), "timestamp": 1, "step": 0} for n in range(NAMES)
            ],
            "params": [{"key": f"name {n:02}", "value": str(chance.randrange(10))} for n in range(NAMES)],
            "tags": [{"key": f"tag {n:02}", "value": str(chance.randrange(10))} for n in range(NAMES + 2)],
        }
        server.post("runs/log-batch", body)
    for run in runs[-8:]:
        for n in range(NAMES):
            curve(server, run, f"metric {n:02}", POINTS, chance)
    curve(server, runs[0], "long", LONG // 10 if quick else LONG, chance)
    return experiment, runs


def curve(server, run, name, points, chance):
    for start in range(0, points, 1_000):
        steps = range(start, min(start + 1_000, points))
        metrics = [{"key": name, "value": chance.random(), "timestamp": step, "step": step} for step in steps]
        server.post("runs/log-batch", {"run_id": run, "metrics": metrics})


def pages(experiment, runs):
    """What is asked for, by case."""
    asked = urllib.parse.quote("metrics.`metric 01` > 0.5 and params.`name 01` = '3'")
    order = urllib.parse.quote("metrics.`metric 00` DESC")
    columns = "&".join(
        f"column={kind}.{urllib.parse.quote(name)}"
        for kind, word in [("metrics", "metric"), ("params", "name")]
        for name in (f"{word} {number:02}" for number in range(15))
    )
    table = f"/experiments/{experiment}"
    return {
        "experiments": "/experiments",
        "runs": table,
        "next": f"{table}?from={len(runs) // 2}",
        "filter": f"{table}?filter={asked}",
        "sort": f"{table}?order={order}",
        "columns": f"{table}?{columns}",
        "run": f"/runs/{runs[-1]}",
        "long": f"/runs/{runs[0]}",
        "compare": "/runs/compare?" + "&".join(f"run={run}" for run in runs[-8:]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each page is asked for, after once")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--program", required=True)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--check", action="store_true", help="fail where a page takes longer than is promised")
    asked = parser.parse_args()
    table = rows.Rows()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        with registry.ours(pathlib.Path(asked.program).resolve(), root / "server") as server:
            for case, path in pages(*fill(server, asked.quick)).items():
                html = server.call("GET", path, raw=True)
                if b"</html>" not in html:
                    raise SystemExit(f"{case}: no page: {html[:300]!r}")
                table.add(case, "size", "KiB", rows.OURS, len(html) / 1024)
                for _ in range(asked.runs):
                    began = time.monotonic()
                    server.call("GET", path, raw=True)
                    table.add(case, "wall", "ms", rows.OURS, (time.monotonic() - began) * 1000)
            table.add("memory", "memory", "MiB", rows.OURS, server.memory_mib())
    print(table.table())
    if asked.json:
        table.write(asked.json)
    slow = [
        row["case"]
        for row in table.rows()
        if row["measure"] == "wall" and row["case"] != "long" and row["ours"]["median"] > PROMISE
    ]
    if asked.check and slow:
        sys.exit(f"slower than {PROMISE} ms: {', '.join(slow)}")


if __name__ == "__main__":
    main()
