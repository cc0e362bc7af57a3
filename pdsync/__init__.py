"""pdsync: a Pipedrive company in a database you control."""

__version__ = "0.1.0"
