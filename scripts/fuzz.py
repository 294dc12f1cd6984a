"""Runs the fuzz targets of tests/fuzz with cargo-fuzz on the stable toolchain.

Seeds lie in tests/fuzz/corpus/TARGET and are committed; what a run finds beside them lies in target/fuzz/corpus/TARGET
and is gone on from. An input that makes a target fail is kept in target/fuzz/found/TARGET: it becomes a test.
"""

import argparse
import datetime
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUZZ = ROOT / "tests" / "fuzz"
WORK = ROOT / "target" / "fuzz"
SUMMARY = ROOT / "docs" / "measured" / "fuzz.md"
HEAD = """\
# What the fuzz targets did

Written by `scripts/fuzz all --seconds 600 --write`: each target of `tests/fuzz`, from the corpus that is kept, with
debug assertions and overflow checks on. Coverage counts the edges of our code and its dependencies that were reached.

| target | seconds | executions | coverage | inputs | findings | commit | day |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
# Seeds that are committed for a target, and the longest one: long inputs reach most, and slow a target down.
MOST_FILES, LONGEST = 60, 4 << 10


class FuzzError(Exception):
    """A target could not do what it was asked to; the text says why."""


def targets():
    """The targets in the order of the manifest, each with the features that it wants."""
    manifest = tomllib.loads((FUZZ / "Cargo.toml").read_text())
    return {target["name"]: target.get("required-features", []) for target in manifest["bin"]}


def cargo_fuzz(command, target, *arguments, **more):
    """`cargo fuzz` as it works on the stable toolchain: coverage, but none of the sanitizers that want a nightly."""
    fixed = ["--fuzz-dir", FUZZ, "--sanitizer", "none", "--target-dir", WORK / "build"]
    if wanted := targets()[target]:
        fixed += ["--features", ",".join(wanted)]
    return subprocess.run(["cargo", "fuzz", command, *fixed, target, *arguments], cwd=ROOT, text=True, **more)


def build(target):
    if cargo_fuzz("build", target).returncode:
        raise FuzzError(f"{target} does not build")


def folders(target):
    """Where new inputs go, the kept ones, and where findings go."""
    made = WORK / "corpus" / target, FUZZ / "corpus" / target, WORK / "found" / target
    for folder in made:
        folder.mkdir(parents=True, exist_ok=True)
    return made


def options(target, found):
    """For libFuzzer: an input of 10 s or 2 GiB is a finding as well."""
    words = FUZZ / "dictionaries" / f"{target}.txt"
    given = [f"-artifact_prefix={found}/", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
    return given + ([f"-dict={words}"] if words.exists() else [])


def run(target, seconds):
    """Runs a target; gives its row for the summary and whether it found nothing."""
    build(target)
    grown, seeds, found = folders(target)
    before = set(found.iterdir())
    print(f"{target}: {seconds} s", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = cargo_fuzz(
        "run",
        target,
        grown,
        seeds,
        "--",
        f"-max_total_time={seconds}",
        "-max_len=65536",
        *options(target, found),
        capture_output=True,
    )
    findings = sorted(set(found.iterdir()) - before)
    log = WORK / f"{target}.log"
    log.write_text(done.stderr)
    row = read(done.stderr, round(time.monotonic() - began))
    if row is None:
        raise FuzzError(f"{target} did not run; its words are in {log}:\n{done.stderr[-2000:]}")
    if done.returncode and not findings:
        raise FuzzError(f"{target} ended with exit code {done.returncode} and kept no input; see {log}")
    for finding in findings:
        print(f"FOUND  {finding}  (the panic's words: {log})", file=sys.stderr)
    row.update(target=target, findings=len(findings), commit=commit(), day=datetime.date.today().isoformat())
    return row, not findings


def read(log, took):
    """Executions, seconds, coverage and inputs, as libFuzzer's last lines say; none where it did not run. `took`: the
    seconds, where it does not say them because something was found."""
    progress = re.findall(r"^#(\d+)\s.*?cov: (\d+) ft: \d+ corp: (\d+)/", log, re.MULTILINE)
    if not progress:
        return None
    executions, coverage, inputs = progress[-1]
    done = re.search(r"^Done (\d+) runs in (\d+) second", log, re.MULTILINE)
    stat = re.search(r"^stat::number_of_executed_units:\s*(\d+)", log, re.MULTILINE)
    return {
        "executions": int(stat[1] if stat else executions),
        "seconds": int(done[2]) if done else took,
        "coverage": int(coverage),
        "inputs": int(inputs),
    }


def commit():
    """The commit that ran; with a `+` where files were changed."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "src", "tests/fuzz/targets"], capture_output=True, text=True)
    return name + ("+" if changed.stdout.strip() else "")


def write(rows):
    """Puts the rows into the summary; those of other targets stay."""
    kept = {}
    if SUMMARY.exists():
        for line in SUMMARY.read_text().splitlines():
            if line.startswith("| ") and not line.startswith(("| target", "| ---")):
                kept[line.split("|")[1].strip()] = line
    columns = ("target", "seconds", "executions", "coverage", "inputs", "findings", "commit", "day")
    for row in rows:
        kept[row["target"]] = "| " + " | ".join(f"{row[c]:,}" if c == "executions" else str(row[c]) for c in columns) + " |"
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)
    lines = [kept[target] for target in targets() if target in kept]
    SUMMARY.write_text(HEAD + "\n".join(lines) + f"\n\nOn {platform.machine()}, {platform.system()}.\n")
    print(f"written: {SUMMARY.relative_to(ROOT)}", file=sys.stderr)


def is_found(file):
    """Whether libFuzzer named it: by its SHA-1."""
    return re.fullmatch("[0-9a-f]{40}", file.name) is not None


def keep(target):
    """Of the fewest inputs that reach the code which all together reach, the longest become the committed seeds. Seeds
    that a person gave a name stay."""
    build(target)
    grown, seeds, found = folders(target)
    merged = WORK / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    done = cargo_fuzz(
        "run",
        target,
        merged,
        grown,
        seeds,
        "--",
        "-set_cover_merge=1",
        # How often a place is reached would make many times as many inputs.
        "-use_counters=0",
        *options(target, found),
        capture_output=True,
    )
    if done.returncode:
        raise FuzzError(f"the corpus of {target} cannot be merged:\n{done.stderr[-2000:]}")
    for file in seeds.iterdir():
        if is_found(file):
            file.unlink()
    room = MOST_FILES - len(list(seeds.iterdir()))
    inputs = [file for file in merged.iterdir() if is_found(file) and file.stat().st_size <= LONGEST]
    for file in sorted(inputs, key=lambda file: (-file.stat().st_size, file.name))[: max(room, 0)]:
        shutil.copy(file, seeds / file.name)
    print(f"{target}: {len(list(seeds.iterdir()))} of {len(list(merged.iterdir()))} inputs are kept", file=sys.stderr)


def main():
    names = list(targets())
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  scripts/fuzz notebook --seconds 60\n  scripts/fuzz all --seconds 600 --write\n"
        "  scripts/fuzz lines --keep\n  scripts/fuzz lines --input target/fuzz/found/lines/crash-1234",
    )
    parser.add_argument("target", choices=[*names, "all"], metavar="TARGET", help=f"{', '.join(names)}, or all")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long each target runs (60)")
    parser.add_argument("--write", action="store_true", help=f"put the rows into {SUMMARY.relative_to(ROOT)}")
    parser.add_argument("--keep", action="store_true", help="run nothing: make the committed seeds anew from all inputs")
    parser.add_argument("--input", type=pathlib.Path, metavar="FILE", help="run only this input, and show what happens")
    given = parser.parse_args()
    if given.seconds < 1:
        parser.error("--seconds wants 1 or more")
    chosen = names if given.target == "all" else [given.target]
    if given.input:
        if given.target == "all":
            parser.error("--input wants one target")
        return cargo_fuzz("run", given.target, given.input.absolute()).returncode
    rows, clean = [], True
    for target in chosen:
        # One that does not build does not keep the others from running.
        try:
            if given.keep:
                keep(target)
                continue
            row, good = run(target, given.seconds)
        except FuzzError as error:
            print(f"fuzz: {error}", file=sys.stderr)
            clean = False
            continue
        rows.append(row)
        clean = clean and good
        print(
            f"{target}: {row['executions']:,} executions in {row['seconds']} s, coverage {row['coverage']}, "
            f"{row['findings']} findings",
            flush=True,
        )
    if given.write and rows:
        write(rows)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
