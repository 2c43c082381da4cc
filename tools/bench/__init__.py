"""Measurements: `tools/devtool bench NAME`.

A benchmark prints a table of figures, each beside its floor or its peer measured in the same run; `--json` prints the
same for machines, plots go to build/bench. Read `boot.py` first.
"""
