"""Queue a mutation and push, by the command line inside this process.

id = queue(project, "updateDeal", "id=1", "title=New")
ran = push(project, "--create-doubt", "review", code=5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.world import Project, Ran

_PUSH = ("push", "--yes", "--json", "--settle-seconds", "0.05", "--allow", "delete,merge", "--max-deletes", "99")


def queue(project: Project, *words: str) -> str:
    """The id of the mutation that `queue add` has added."""
    ran = project.here("queue", "add", *words, "--json")
    assert ran.code == 0, ran
    return str(ran.summary["id"])


def push(project: Project, *options: str, code: int = 0) -> Ran:
    """A push that may delete and merge, and ends with `code`."""
    ran = project.here(*_PUSH, *options)
    assert ran.code == code, ran
    return ran
