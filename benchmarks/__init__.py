"""Compares pdsync with other programs that make the same tables: `python benchmarks/sync.py`; README.md explains it."""
