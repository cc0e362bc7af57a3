"""What draws the charts of the report, brought up to date: `python -m tests.charts`."""
