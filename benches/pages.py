"""Pages of the registry with 10,000 runs of 20 metrics, 20 params and 22 tags each: wall of each page, warm

The rows are written into the server's SQLite file as the server writes them; the pages are then asked for over one
connection that stays open. There is no peer: pages of others need a browser to be drawn.

experiments   the list, 60 of them
runs          the first page of an experiment's table
next          a page from the middle
filter        runs by a metric and a param
sort          runs by a metric
columns       all 40 columns
run           a run with 20 curves of 1,000 points
long          a curve of a million points
compare       8 runs, 20 curves each
"""

import argparse
import contextlib
import pathlib
import random
import sqlite3
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


def fill(database, quick):
    """An experiment with many runs, some of them with curves."""
    runs = RUNS // 10 if quick else RUNS
    chance = random.Random(1)
    database.executemany(
        "INSERT INTO experiments (id, name, created_at, changed_at) VALUES (?, ?, 1, 1)",
        [(number, f"experiment {number}") for number in range(1, 61)],
    )
    database.executemany(
        "INSERT INTO runs (id, experiment, name, person, status, started_at, finished_at) VALUES (?, 1, ?, 'ada', 'FINISHED', ?, ?)",
        [(f"{n:032x}", f"run {n}", n * 60_000, n * 60_000 + 5_000) for n in range(runs)],
    )
    metrics, points = [], []
    for n in range(runs):
        for name in range(NAMES):
            metric = n * NAMES + name + 1
            value = chance.random()
            length = POINTS if n >= runs - 8 else 1
            metrics.append((metric, f"{n:032x}", f"metric {name:02}", value, length))
            points.extend((metric, step, step, value + step) for step in range(length))
    metrics.append((runs * NAMES + 1, f"{0:032x}", "long", 1.0, 1))
    database.executemany("INSERT INTO run_metrics (id, run, name, value, word, step, at) VALUES (?, ?, ?, ?, '', ?, 1)", metrics)
    database.executemany("INSERT INTO metric_points (metric, at, step, value, word) VALUES (?, ?, ?, ?, '')", points)
    long = LONG // 10 if quick else LONG
    database.executemany(
        "INSERT INTO metric_points (metric, at, step, value, word) VALUES (?, ?, ?, ?, '')",
        ((runs * NAMES + 1, step, step, chance.random()) for step in range(long)),
    )
    for table, count in [("run_params", NAMES), ("run_tags", NAMES + 2)]:
        database.executemany(
            f"INSERT INTO {table} (run, name, value) VALUES (?, ?, ?)",
            ((f"{n:032x}", f"name {name:02}", str(chance.randrange(10))) for n in range(runs) for name in range(count)),
        )
    return runs


def pages(runs):
    """What is asked for, by case."""
    asked = urllib.parse.quote("metrics.`metric 01` > 0.5 and params.`name 01` = '3'")
    order = urllib.parse.quote("metrics.`metric 00` DESC")
    columns = "&".join(
        f"column={kind}.{urllib.parse.quote(name)}"
        for kind, word in [("metrics", "metric"), ("params", "name")]
        for name in (f"{word} {number:02}" for number in range(15))
    )
    last = [f"{runs - 1 - n:032x}" for n in range(8)]
    return {
        "experiments": "/experiments",
        "runs": "/experiments/1",
        "next": f"/experiments/1?from={runs // 2}",
        "filter": f"/experiments/1?filter={asked}",
        "sort": f"/experiments/1?order={order}",
        "columns": f"/experiments/1?{columns}",
        "run": f"/runs/{last[0]}",
        "long": f"/runs/{0:032x}",
        "compare": "/runs/compare?" + "&".join(f"run={run}" for run in last),
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
            database = sqlite3.connect(root / "server" / "data" / "trainyard.db", timeout=60)
            with contextlib.closing(database), database:
                runs = fill(database, asked.quick)
            for case, path in pages(runs).items():
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
