"""The version of pdsync."""

__version__ = "0.1.0"
