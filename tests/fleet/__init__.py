"""Tests of the package `pdsync.fleet`."""
