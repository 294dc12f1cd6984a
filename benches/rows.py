"""What benchmarks share: samples become rows, rows become a table and JSON. Knows nothing of what is measured."""

import json
import statistics

OURS = "trainyard"


class Rows:
    """Samples by case, measure and contender, in the order in which they were first added."""

    def __init__(self):
        self.samples = {}
        self.units = {}

    def add(self, case, measure, unit, contender, value):
        """One sample. The same measure has one unit."""
        row = (case, measure)
        if self.units.setdefault(row, unit) != unit:
            raise ValueError(f"{case}, {measure}: {unit} and {self.units[row]}")
        self.samples.setdefault(row, {}).setdefault(contender, []).append(value)

    def rows(self):
        """As they are written to a file."""
        rows = []
        for (case, measure), contenders in self.samples.items():
            row = {"case": case, "measure": measure, "unit": self.units[case, measure], "ours": None, "peers": {}}
            for contender, values in contenders.items():
                summary = {
                    "median": round(statistics.median(values), 4),
                    "min": round(min(values), 4),
                    "max": round(max(values), 4),
                    "samples": [round(value, 4) for value in values],
                }
                if contender == OURS:
                    row["ours"] = summary
                else:
                    row["peers"][contender] = summary
            rows.append(row)
        return rows

    def write(self, path):
        """A JSON list with one row a line."""
        lines = ",\n".join(json.dumps(row) for row in self.rows())
        path.write_text(f"[\n{lines}\n]\n")

    def read(self, path):
        """Adds the samples of a file that was written before."""
        for row in json.loads(path.read_text()):
            for contender, summary in [(OURS, row["ours"]), *row["peers"].items()]:
                for value in summary["samples"] if summary else ():
                    self.add(row["case"], row["measure"], row["unit"], contender, value)

    def count(self, case, measure, contender):
        """How many samples there are."""
        return len(self.samples.get((case, measure), {}).get(contender, ()))

    def table(self):
        """A line for each contender: ours first, then the peers from the least median up; beside each peer how many
        of its medians ours is."""
        head = ("CASE", "MEASURE", "UNIT", "WHO", "MEDIAN", "MIN", "MAX", "OURS/PEER")
        lines = [head]
        for row in self.rows():
            first = (row["case"], row["measure"], row["unit"])
            ours = [(OURS, row["ours"])] if row["ours"] else []
            peers = sorted(row["peers"].items(), key=lambda peer: peer[1]["median"])
            for place, (who, summary) in enumerate(ours + peers):
                numbers = (f"{summary[key]:.2f}" for key in ("median", "min", "max"))
                ratio = ""
                if who != OURS and row["ours"] and summary["median"]:
                    ratio = f"{row['ours']['median'] / summary['median']:.3f}"
                lines.append(((first if place == 0 else ("", "", "")) + (who, *numbers, ratio)))
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        return "\n".join(
            "  ".join(
                text.rjust(width) if column >= 4 else text.ljust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
