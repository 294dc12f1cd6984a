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

    def table(self):
        """A line for each contender: ours first, then the peers from the least median up."""
        head = ("CASE", "MEASURE", "UNIT", "WHO", "MEDIAN", "MIN", "MAX")
        lines = [head]
        for row in self.rows():
            first = (row["case"], row["measure"], row["unit"])
            ours = [(OURS, row["ours"])] if row["ours"] else []
            peers = sorted(row["peers"].items(), key=lambda peer: peer[1]["median"])
            for place, (who, summary) in enumerate(ours + peers):
                numbers = (f"{summary[key]:.2f}" for key in ("median", "min", "max"))
                lines.append(((first if place == 0 else ("", "", "")) + (who, *numbers)))
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        return "\n".join(
            "  ".join(
                text.rjust(width) if column >= 4 else text.ljust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
