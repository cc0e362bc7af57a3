"""Compares pdsync with other ways to the same tables. Run `python benchmarks/sync.py`; README.md says what it means."""
