"""The cases of `tools/faults.py`, by what goes wrong."""
