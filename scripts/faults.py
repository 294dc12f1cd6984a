"""Rounds of the fault suite (tests/faults): jobs on three agents while agents, server, drivers, engines, disks, clocks and
network fail, planned by a seed. A run that was stopped goes on where it was; a round that failed is run again with --round.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "faults"
SUMMARY = ROOT / "docs" / "measured" / "faults.md"
OUTAGES = ROOT / "docs" / "measured" / "outages.md"
TEST = ["cargo", "test", "--quiet", "--locked", "--test", "e2e"]
BY_HAND = ["--", "--ignored", "--nocapture"]


def run(seed, first, end, file):
    """Runs the rounds that the file lacks. Gives whether all held."""
    env = dict(
        os.environ,
        TRAINYARD_FAULTS_SEED=str(seed),
        TRAINYARD_FAULTS_FROM=str(first),
        TRAINYARD_FAULTS_TO=str(end),
        TRAINYARD_FAULTS_FILE=str(file),
    )
    return subprocess.run([*TEST, "fault_suite::long", *BY_HAND], cwd=ROOT, env=env).returncode == 0


def commit():
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def outages(write):
    """Two outages as long as in life. Gives whether nothing was lost."""
    file = WORK / "outages.ndjson"
    file.unlink(missing_ok=True)
    env = dict(os.environ, TRAINYARD_FAULTS_FILE=str(file))
    at = commit()
    if subprocess.run([*TEST, "fault_suite::outages", *BY_HAND], cwd=ROOT, env=env).returncode:
        return False
    rows = sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda row: row["outage"])
    lines = [
        "# Outages as long as in life",
        "",
        f"Written by `scripts/faults --outages --write` at commit {at}. A server counts an agent as lost after ten minutes, as",
        "it does by default. A training on the only host tells an epoch each second while nothing comes through between agent and",
        "server. Each ended by its only attempt, with all of its epochs, its model, and its events numbered without a gap.",
        "",
        "| nothing comes through for | epochs | events |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {row['outage'] // 60} minutes | {row['epochs']} | {row['events']} |" for row in rows]
    summary = "\n".join(lines) + "\n"
    print(summary)
    if write:
        OUTAGES.write_text(summary)
        print(f"written: {OUTAGES.relative_to(ROOT)}", file=sys.stderr)
    return True


def read(file, seed):
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [row for row in rows if row["seed"] == seed]


def words(rows, seed, at):
    """The summary of a seed's rounds in Markdown."""
    planned = sum(len(re.findall(r"job\d+: ", row["plan"])) for row in rows)
    deeds = collections.Counter(re.match(r"\w+", deed)[0] for row in rows for deed in row["done"])
    jobs = collections.Counter(job for row in rows for job in re.search(r"jobs \[(.*?)\]", row["plan"])[1].split(", "))
    bad = [row for row in rows if row["problem"]]
    listed = lambda counts: ", ".join(f"{n} {name}" for name, n in counts.most_common())  # noqa: E731
    lines = [
        "# What the fault suite did",
        "",
        f"Written by `scripts/faults --seed {seed} --rounds {len(rows)} --write` at commit {at}.",
        "After each round: every job has ended as it would have without faults, by one believed attempt whose lines and files",
        "are whole; no event of any attempt is missing or out of order; every other attempt ended by a failure of the platform's that",
        "a fault done in this round explains, of its kind and on its host; no two attempts had a GPU at once;",
        "no booking, container or folder is left, no GPU is in quarantine but one that was broken, and every agent is idle. Agents,",
        "server and drivers (in containers and as processes) are killed and stopped, the",
        "network between them cut and delayed, answers lost and requests repeated; disks of agents and server are filled to the last byte, the server's",
        "wall clock is stepped. An engine is cut off by a socket before it, and where it is restarted, its containers end too.",
        "",
        f"- {len(rows)} rounds in {sum(row['seconds'] for row in rows) / 60:.0f} minutes; {len(bad)} did not hold",
        f"- jobs: {listed(jobs)}",
        f"- faults done, of {planned} planned (not done: those that found nothing to break): {listed(deeds)}",
    ]
    lines += [f"- round {row['round']} did not hold: {row['problem'].splitlines()[0]}" for row in bad]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  scripts/faults --rounds 200 --write\n  scripts/faults --seed 7 --rounds 50\n  scripts/faults --seed 7 --round 13\n  scripts/faults --outages --write",
    )
    parser.add_argument("--seed", type=int, help="plans all rounds (a random one, which is printed)")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="how many (200)")
    parser.add_argument("--round", type=int, metavar="N", help="only this one, also when it was run before")
    parser.add_argument("--outages", action="store_true", help="instead: two outages as long as in life, 13 minutes")
    parser.add_argument("--write", action="store_true", help="put the summary into docs/measured")
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if args.outages:
        return 0 if outages(args.write) else 1
    seed = args.seed if args.seed is not None else random.randrange(1, 1 << 32)
    print(f"seed {seed}", file=sys.stderr)
    if args.round is not None:
        file = WORK / f"round-{seed}-{args.round}.ndjson"
        file.unlink(missing_ok=True)
        return 0 if run(seed, args.round, args.round + 1, file) else 1
    at = commit()
    # A run that was stopped goes on with what it began with.
    file = WORK / f"rounds-{at}.ndjson"
    held = run(seed, 0, args.rounds, file)
    rows = sorted(read(file, seed), key=lambda row: row["round"])[: args.rounds]
    if not rows:
        print("no round was run", file=sys.stderr)
        return 1
    summary = words(rows, seed, at)
    print(summary)
    if args.write:
        SUMMARY.write_text(summary)
        print(f"written: {SUMMARY.relative_to(ROOT)}", file=sys.stderr)
    return 0 if held and not any(row["problem"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
