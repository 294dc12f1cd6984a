"""Runs ours, nbclient and papermill on a small notebook for each behaviour, and says what each did.

What is written is computed from what each tool left: its exit code (ours: the driver's verdict), its words, and the
executed notebook. The behaviours stand in benches/engines/behaviours.py. The same tools give the same file.
"""

import argparse
import pathlib
import sys

import world
from engines import behaviours, engines, inputs, measure
from engines.seen import Seen

TOOLS = (engines.OURS, engines.NBCLIENT, engines.PAPERMILL)
TABLE = world.ROOT / "docs" / "fidelity.md"
HEAD = """\
# What becomes of a notebook

Each row is a small notebook, run by Trainyard's driver, by `jupyter execute` (nbclient {nbclient}) and by papermill
{papermill}, all with ipykernel {ipykernel}. `scripts/fidelity` runs them and writes this page: what stands here is what each
of them did, read from the notebook that it left and from how it ended. Where a tool has no such option it ran without it.
Nothing saved: there is no executed notebook afterwards.
"""


def versions(python):
    """Of the peers, as their lock says."""
    lock = (python.parent.parent / "lock").read_text().splitlines()
    return dict(line.split()[0].split("==") for line in lock if "==" in line and not line.startswith((" ", "#")))


def observe(place, behaviour, tool):
    """What a tool did, in a few words."""
    source = place.folder / f"{behaviour.name}.ipynb"
    if isinstance(behaviour.notebook, str):
        source.write_text(behaviour.notebook)
    else:
        inputs.write(source, behaviour.notebook)
    options = behaviour.options.get(tool)
    ran = place.run(tool, source, options=options, limit=behaviour.limit, stall=behaviour.stall)
    try:
        words = behaviour.look(Seen(tool, ran))
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        words = f"left what cannot be looked through: {type(error).__name__}"
    print(f"  {behaviour.name:24} {tool:10} {words}", file=sys.stderr, flush=True)
    if "--debug" in sys.argv:
        print(ran.took.output[-3000:], ran.result, file=sys.stderr)
    return words


def escaped(text):
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def table(rows, versions):
    """The page: a table for each section."""
    lines = [HEAD.format_map(versions)]
    section = None
    for behaviour, words in rows:
        if behaviour.section != section:
            section = behaviour.section
            lines += [f"\n## {section}\n", "| behaviour | Trainyard | nbclient | papermill |", "| --- | --- | --- | --- |"]
        cells = [behaviour.title, *(words[tool] for tool in TOOLS)]
        lines.append("| " + " | ".join(escaped(cell) for cell in cells) + " |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def main():
    names = [behaviour.name for behaviour in behaviours.ALL]
    parser = argparse.ArgumentParser(
        prog="scripts/fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="behaviours:\n" + "\n".join(f"  {one.name:24} {one.title}" for one in behaviours.ALL),
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this behaviour, on the screen alone; repeatable")
    parser.add_argument("--check", action="store_true", help="fail where the file would become another one; write nothing")
    parser.add_argument("--debug", action="store_true", help="show the tools' own words")
    parser.add_argument("--out", type=pathlib.Path, default=TABLE, metavar="FILE", help="docs/fidelity.md")
    parser.add_argument("--driver", type=pathlib.Path, metavar="FILE", help="another `trainyard-driver`; nothing is built")
    parser.add_argument("--python", type=pathlib.Path, metavar="FILE", help="the Python of the peers' environment")
    given = parser.parse_args()
    for name in given.only or ():
        if name not in names:
            parser.error(f"there is no behaviour '{name}'; there are: {', '.join(names)}")
    python = (given.python or world.ROOT / ".trainyard" / "bench-peers" / "bin" / "python").absolute()
    for program in (given.driver, python):
        if program is None or not program.is_file():
            parser.error(f"there is no program {program}")

    rows = []
    with world.temporary_folder("trainyard-fidelity-") as folder:
        place = engines.Place(folder, python, given.driver.absolute())
        for behaviour in behaviours.ALL:
            if given.only and behaviour.name not in given.only:
                continue
            try:
                rows.append((behaviour, {tool: observe(place, behaviour, tool) for tool in TOOLS}))
            except (measure.MeasureError, OSError) as error:
                print(f"fidelity: {behaviour.name}: {error}", file=sys.stderr)
                return 1
    page = table(rows, versions(python))
    if given.only:
        print(page)
        return 0
    if given.check:
        same = given.out.exists() and given.out.read_text() == page
        print(f"{given.out}: {'as it stands' if same else 'it would become another one'}", file=sys.stderr)
        return 0 if same else 1
    given.out.write_text(page)
    print(f"written: {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
