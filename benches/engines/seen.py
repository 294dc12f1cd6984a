"""What a tool left of a notebook, as it is looked at. Knows no behaviour."""

from engines import inputs
from engines.engines import OURS, Ran


class Seen:
    """What a tool left."""

    def __init__(self, tool, ran: Ran):
        self.tool = tool
        self.ran = ran
        self.saved = ran.executed is not None

    @property
    def words(self):
        """All that it said on its outputs; ours: its failure."""
        failure = (self.ran.result or {}).get("failure", {})
        return self.ran.took.output + "\n".join(str(failure.get(key, "")) for key in ("message", "hint", "detail"))

    @property
    def well(self):
        return self.verdict == "succeeded" if self.tool == OURS else self.ran.took.code == 0

    @property
    def verdict(self):
        return (self.ran.result or {}).get("verdict", "no verdict")

    def ended(self):
        """How it ended: the exit code, or the driver's verdict with the kind of failure."""
        if self.ran.took.timed_out:
            return "hung until it was killed"
        if self.tool != OURS:
            return f"exit {self.ran.took.code}"
        failure = (self.ran.result or {}).get("failure")
        return f"failed: {failure['kind']}" if failure else self.verdict

    def cell(self, index):
        """The cell that was given the id `cell-<index>`."""
        return next(cell for cell in self.ran.executed["cells"] if cell.get("id") == f"cell-{index}")

    def text(self, index):
        return inputs.streams(self.cell(index))

    def errors(self, index):
        return [out for out in self.cell(index)["outputs"] if out["output_type"] == "error"]

    def mimes(self, index):
        """MIME types of a cell's displays and results."""
        outputs = self.cell(index)["outputs"]
        return sorted({mime for out in outputs for mime in out.get("data", {})})

    def status(self, index):
        """The status of a cell in its metadata, by the tool's own key."""
        metadata = self.cell(index)["metadata"]
        return metadata.get("trainyard", {}).get("status") or metadata.get("papermill", {}).get("status") or "none"


def saved(look):
    """A look that needs an executed notebook; without one it says how the tool ended."""

    def guarded(seen):
        return look(seen) if seen.saved else f"{seen.ended()}, nothing saved"

    return guarded


def count(number, word):
    return f"{number} {word}" + ("" if number == 1 else "s")
