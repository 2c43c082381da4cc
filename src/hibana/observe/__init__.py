"""What the operator sees: the log and the metrics.

Any other chapter may speak here: `log.error("…")`, `METRICS.block[drive_id].read_count += 1`. Lines leave, one write
each, for a file, a FIFO or stdout; nothing here ever blocks or raises because a reader is slow. Read `log.py` first,
then `metrics_groups.py`, the table of all counters, and `metrics.py`, which writes them out.
"""
