"""Runs a notebook by our driver and by its peers, measured. Shared by scripts/bench notebook and scripts/fidelity."""
