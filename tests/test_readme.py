"""The README's two set-up commands are the ones that CI runs, and what it lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from pdsync.cli.main import COMMANDS
from pdsync.core import catalogue, config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_screen_holds_exactly_two_set_up_commands() -> None:
    first_screen = README.split("## With your own company", maxsplit=1)[0]
    commands = re.findall(r"```sh\n(.*?)\n```", first_screen, re.DOTALL)
    assert len(commands) == 2
    assert commands[0].endswith("pdsync demo")
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_command_and_setting_is_told() -> None:
    for command in COMMANDS:
        assert f"`{command}" in README or f"pdsync {command}" in README
    for setting, declared in config.SETTINGS.items():
        assert f"`{setting}`" in README
        assert declared.env in README
        assert str(declared.default) in README


def test_the_counts_are_right() -> None:
    assert f"{len(catalogue.streams())} streams" in README
    assert f"all {sum(len(catalogue.operations(version)) for version in catalogue.VERSIONS)} operations" in README
