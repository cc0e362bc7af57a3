"""control.db: the state that must survive a kill at any instant, and that several processes share.

It stores the company this project belongs to, runs, walks and their sealed pages, the windows of backfills, the outbox
and the limiter's ledger. Whether a page has been *loaded* is not in it: the warehouse records which batches it
has applied, so the two stores can't disagree.

The file may be lost, or replaced by an older copy, while the warehouse and the raw archive are not. So the ids of walks
and runs never repeat, and the raw archive, not this file, is the authority on which pages there are: see
`runner.stores`.
"""

from pdsync.core.control.archive_index import ArchiveIndex
from pdsync.core.control.db import VERSION, Lock
from pdsync.core.control.erasure import ErasedRecord, Erasures
from pdsync.core.control.runs import ONLY_ARCHIVED, Runs
from pdsync.core.control.walks import NO_BODY, SealedPage, opened_at

__all__ = ["NO_BODY", "ONLY_ARCHIVED", "VERSION", "Control", "ErasedRecord", "Lock", "SealedPage", "opened_at"]


class Control(Runs, ArchiveIndex, Erasures):
    """An open control.db. Safe to use from several threads; several processes may have it open at once."""
