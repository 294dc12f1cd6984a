"""notebooks executed beside papermill, nbclient and nbconvert, compared beside nbdime, shown beside nbconvert, linted

Ours is the released driver, run directly on a folder: the engine beside the engines, no container. All use the kernel
of one Python, the peers' (scripts/pins/bench-peers.lock). Every executed notebook is looked through: `lost` counts the
lines and updates that it lacks; of a diff or a page, the cells that are told wrong or missing.

wall               seconds from the start of the tool to its end
CPU, tool alone    its own CPU seconds, without those of its kernel
CPU, with kernel   with those
peak memory        of the tool's own process (VmHWM at its exit), MB of 10^6 bytes
lost               what is lacking, or told wrong
the tool itself    of `trainyard lint`: how long the tool ran; and how long reading what it said took
"""

import argparse
import os
import pathlib
import platform
import sys

import rows
import world
from engines import cases, compare, engines, inputs, lint, measure, promises
from engines.promises import CPU, CPU_ALL, LOST, MEMORY, WALL

CASES = (*cases.EXECUTION, *compare.COMPARISONS, *lint.LINTS)
NAMES = [case.name for case in CASES]


class Bench:
    """Samples of all cases and contenders, written out after each."""

    def __init__(self, place, table, file):
        self.place = place
        self.rows = table
        self.file = file
        self.troubles = []

    def record(self, case, contender, samples):
        for name, value in samples.items():
            self.rows.add(case, name, promises.UNITS.get(name, "s"), contender, value)
        if self.file:
            self.rows.write(self.file)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in samples.items())
        print(f"  {case}, {contender}: {shown}", file=sys.stderr, flush=True)

    def trouble(self, text):
        """A case that could not be measured: the others go on."""
        if text not in self.troubles:
            self.troubles.append(text)
            print(f"  {text}", file=sys.stderr, flush=True)

    def execution(self, case, contender, source):
        """One run of one contender."""
        if contender == engines.KERNEL:
            self.record(case.name, contender, {WALL: self.place.kernel_start()})
            return
        ran = self.place.run(contender, source)
        took = ran.took
        samples = {WALL: took.wall, CPU: took.cpu, CPU_ALL: took.cpu_all, MEMORY: took.peak / 1e6}
        if took.code or (ran.result and ran.result["verdict"] != "succeeded"):
            said = ran.result or took.output.strip().splitlines()[-1:]
            failed = f"{case.name}, {contender}: it failed (exit code {took.code}): {said}"
            if contender == engines.OURS or ran.executed is None:
                self.trouble(failed)
                return
            # A peer that gave up, often because the kernel's last words were lost, but saved what it had.
            print(f"  {failed}", file=sys.stderr, flush=True)
        if contender != engines.LOOP:
            if ran.executed is None:
                self.trouble(f"{case.name}, {contender}: it left no executed notebook")
                return
            samples[LOST] = case.lost(ran.executed)
        self.record(case.name, contender, samples)

    def comparison(self, case, contender):
        """One run of one contender, in the folder where the case's files lie."""
        folder = self.place.folder / case.name
        if not folder.exists():
            folder.mkdir()
            for name, document in case.make().items():
                inputs.write(folder / name, document)
        who, took, lost, *more = case.run[contender](self.place, folder)
        samples = {WALL: took.wall, CPU: took.cpu, MEMORY: took.peak / 1e6}
        if lost is not None:
            samples[LOST] = lost
        self.record(case.name, who, samples | (more[0] if more else {}))

    def one(self, case, contender):
        """A sample; a case that cannot be measured says so."""
        try:
            if isinstance(case, compare.Compare):
                self.comparison(case, contender)
                return
            source = self.place.folder / f"{case.name}.ipynb"
            if not source.exists():
                inputs.write(source, case.make())
            self.execution(case, contender, source)
        except (measure.MeasureError, OSError) as error:
            self.trouble(f"{case.name}, {contender}: {error}")

    def round(self, number, wanted, peers):
        """One sample of each, in turn, where there are fewer than `number` yet."""
        for case in (case for case in CASES if case.name in wanted):
            for contender in contenders(case):
                if contender != engines.OURS and peers is not None and contender not in peers:
                    continue
                names = (contender, compare.STOPPED) if contender == compare.NBDIME else (contender,)
                if sum(self.rows.count(case.name, WALL, name) for name in names) < number:
                    self.one(case, contender)


def contenders(case):
    return tuple(case.run) if isinstance(case, compare.Compare) else case.who


def versions(python):
    """Of the peers, as their lock says."""
    lock = (pathlib.Path(python).parent.parent / "lock").read_text().splitlines()
    names = ("papermill", "nbclient", "nbconvert", "nbdime", "nbqa", "ipykernel")
    found = dict(line.split()[0].split("==") for line in lock if "==" in line and not line.startswith((" ", "#")))
    return ", ".join(f"{name} {found[name]}" for name in names)


def verdicts(table):
    """The promises, a line each, and whether all are held that could be judged."""
    lines, good = [], True
    for promise, measured, held in promises.judge(table.rows()):
        word = {None: "not measured", True: "held", False: "NOT HELD"}[held]
        good = good and held is not False
        lines.append(f"{word:12}  {promise}" + ("" if measured is None else f": {measured:.3g}"))
    return "\n".join(lines), good


def arguments():
    peers = sorted({name for case in CASES for name in contenders(case)} - {engines.OURS})
    parser = argparse.ArgumentParser(
        prog="scripts/bench notebook",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="cases:\n" + "\n".join(f"  {case.name:14} {case.title}" for case in CASES),
    )
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="rounds of each measure (5)")
    parser.add_argument("--case", action="append", choices=NAMES, metavar="NAME", help="only this case; repeatable")
    parser.add_argument(
        "--peer",
        action="append",
        choices=[*peers, "none"],
        metavar="NAME",
        help=f"only this peer beside ours; repeatable: {', '.join(peers)}, none",
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows as JSON, after each sample")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the samples in FILE: only what is missing to N is run"
    )
    parser.add_argument("--check", action="store_true", help="fail where a promise is not held")
    parser.add_argument("--program", type=pathlib.Path, metavar="FILE", help="the `trainyard` to measure")
    parser.add_argument("--driver", type=pathlib.Path, metavar="FILE", help="the `trainyard-driver` to measure")
    parser.add_argument("--python", type=pathlib.Path, metavar="FILE", help="the Python of the peers' environment")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs wants 1 or more")
    if options.resume and not options.json:
        parser.error("--resume goes on from --json FILE")
    if not options.program:
        parser.error("--program is missing")
    options.driver = options.driver or options.program.parent.parent / "lib" / "trainyard" / "trainyard-driver"
    options.python = options.python or world.ROOT / ".trainyard" / "bench-peers" / "bin" / "python"
    for name in ("driver", "python"):
        if not getattr(options, name).is_file():
            parser.error(f"--{name}: there is no program {getattr(options, name)}")
    return options


def main():
    options = arguments()
    table = rows.Rows()
    if options.resume and options.json.exists():
        table.read(options.json)
    with world.temporary_folder("trainyard-bench-") as folder:
        place = engines.Place(folder, options.python.absolute(), options.driver.absolute(), options.program.absolute())
        bench = Bench(place, table, options.json)
        for number in range(1, options.runs + 1):
            print(f"round {number} of {options.runs}", file=sys.stderr, flush=True)
            bench.round(number, options.case or NAMES, options.peer)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs; {versions(options.python)}; up to {options.runs} rounds")
    print(table.table())
    lines, good = verdicts(table)
    print(f"\n{lines}")
    for trouble in bench.troubles:
        print(f"not measured: {trouble}", file=sys.stderr)
    return 1 if bench.troubles or (options.check and not good) else 0


if __name__ == "__main__":
    sys.exit(main())
