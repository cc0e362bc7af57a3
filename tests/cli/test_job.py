"""A command with a receipt ends with the exit code of its run."""

from __future__ import annotations

import click
import pytest

from pdsync.cli.job import exit_with


def test_a_command_ends_with_its_exit_code_and_zero_is_no_error() -> None:
    exit_with(0)
    with pytest.raises(click.exceptions.Exit) as ended:
        exit_with(4)
    assert ended.value.exit_code == 4
