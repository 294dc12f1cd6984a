"""one pass of the scheduler over generated queues and fleets: time, memory, and how both grow

The queues and fleets are generated from a seed: 40 projects of very different sizes, hundreds of demands for none to
eight GPUs of five models, hosts of eight GPUs each of which so many percent are booked. `server::schedule` is called by
an example of its crate, built as it is released; each case is a process of its own.

pass         milliseconds from the queue and the fleet to the decision, after a first pass that is not counted
peak memory  of the process, queue and fleet with it (VmHWM), MB of 10^6 bytes
growth       how many times the pass takes for ten times the jobs, beside n log n: at most as much
"""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import rows
import world

JOBS = (1_000, 10_000, 100_000)
HOSTS = 1_000
# Share of the GPUs that is booked, in percent: nearly full, half full, nothing runs.
FLEETS = {"full": 97, "half": 50, "empty": 0}
PASS, MEMORY = "pass", "peak memory"
MOST_MS, MOST_MB = 50.0, 500.0
DOCUMENT = world.ROOT / "docs" / "measured" / "schedule.md"


def measure(program, jobs, busy, seed, passes):
    """What the passes of one case said; the first is warm-up."""
    words = [str(word) for word in (program, jobs, HOSTS, busy, seed, passes + 1)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600)
    return [json.loads(line) for line in done.stdout.splitlines()][1:]


def name(jobs, fleet):
    return f"{jobs // 1000}k jobs, {fleet}"


def collect(options):
    table, seen = rows.Rows(), {}
    for fleet, busy in FLEETS.items():
        for jobs in JOBS:
            for seed in range(1, options.seeds + 1):
                for said in measure(options.program, jobs, busy, seed, options.runs):
                    table.add(name(jobs, fleet), PASS, "ms", rows.OURS, said["ms"])
                    table.add(name(jobs, fleet), MEMORY, "MB", rows.OURS, said["peak"] / 1e6)
                seen[name(jobs, fleet)] = said
            print(f"  {name(jobs, fleet)}: done", file=sys.stderr, flush=True)
    return table, seen


def medians(table, measure_name):
    return {r["case"]: r["ours"]["median"] for r in table.rows() if r["measure"] == measure_name}


def verdicts(table):
    """What is promised, a line each, and whether all is held."""
    passes, memory = medians(table, PASS), medians(table, MEMORY)
    lines, good = [], True

    def judge(text, value, most):
        nonlocal good
        good = good and value <= most
        lines.append(f"{'held' if value <= most else 'NOT HELD':9} {text}: {value:.1f} of at most {most:.1f}")

    for fleet in FLEETS:
        largest = name(JOBS[-1], fleet)
        judge(f"a pass over {largest}, in ms", passes[largest], MOST_MS)
        judge(f"peak memory with {largest}, in MB", memory[largest], MOST_MB)
        for few, many in zip(JOBS, JOBS[1:]):
            growth = passes[name(many, fleet)] / passes[name(few, fleet)]
            most = many * math.log(many) / (few * math.log(few))
            judge(f"growth from {few // 1000}k to {many // 1000}k jobs, {fleet}", growth, most)
    return "\n".join(lines), good


def sizes(seen):
    """What the cases were, by the last seed."""
    lines = [f"{'CASE':16} {'DEMANDS':>8} {'GPUS':>6} {'PLACED':>7} {'LEFT':>7} {'RESERVED':>9} {'REASONS':>8}"]
    for case, said in seen.items():
        words = [f"{said[key]:>{width}}" for key, width in COLUMNS]
        lines.append(f"{case:16} {' '.join(words)}")
    return "\n".join(lines)


COLUMNS = (("demands", 8), ("gpus", 6), ("placed", 7), ("left", 7), ("reserved", 9), ("reasons", 8))


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench schedule", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="passes of each case and seed (5)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="generated queues and fleets of each case (3)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(world.ROOT)}")
    parser.add_argument("--check", action="store_true", help="fail where a promise is not held")
    parser.add_argument("--program", type=pathlib.Path, metavar="FILE", help="the built example `schedule`")
    options = parser.parse_args()
    if options.runs < 1 or options.seeds < 1:
        parser.error("--runs and --seeds want 1 or more")
    if not options.program:
        parser.error("--program is missing")
    return options


def main():
    options = arguments()
    table, seen = collect(options)
    if options.json:
        table.write(options.json)
    lines, good = verdicts(table)
    rounds = f"{options.seeds} seeds, {options.runs} passes each"
    head = f"{platform.machine()}, {os.cpu_count()} CPUs; {HOSTS} hosts, {HOSTS * 8} GPUs; {rounds}"
    text = "\n\n".join((f"{head}\n{table.table()}", sizes(seen), lines))
    print(text)
    if options.write:
        DOCUMENT.write_text(
            "# One pass of the scheduler\n\n"
            "Printed by `scripts/bench schedule`. A pass is a call of `schedule::place` with a queue and a fleet in memory; reading the rows\n"
            "before and writing what was decided after are not in it. `full`, `half` and `empty`: 97, 50 and 0 percent of the GPUs are booked.\n"
            f"The promise: under {MOST_MS:.0f} ms and {MOST_MB:.0f} MB with 100,000 jobs, and growth no worse than n log n.\n\n"
            f"```text\n{text}\n```\n"
        )
    held = median_spread(table)
    print(f"\n{held}", file=sys.stderr)
    return 1 if options.check and not good else 0


def median_spread(table):
    """How far the slowest pass was from the median one, at most: a noisy machine shows here."""
    spreads = [row["ours"]["max"] / row["ours"]["median"] for row in table.rows() if row["measure"] == PASS]
    return f"the slowest pass of a case took up to {max(spreads):.1f} times its median (median of cases {statistics.median(spreads):.1f})"


if __name__ == "__main__":
    sys.exit(main())
