"""Writes the fingerprints, and the description of the operations that the sandbox serves."""

# ruff: noqa: T201 - a command

from __future__ import annotations

from .generate import generate


def main() -> None:
    for path, content in generate().items():
        path.write_text(content, encoding="utf-8")
        print(f"{path.name}: {len(content):,} characters")


if __name__ == "__main__":
    main()
