"""The planted bugs: each is one wrong decision that a reader of the code could overlook, and the promise it breaks."""

from __future__ import annotations

from tests.mutants.edit import Mutant, drop, move, replace, text

MUTANTS = (
    # What is read, and from when.
    Mutant(
        "watermark is the newest change seen", "S3 S4", "pdsync.core.watermark.advance",
        (replace(
            "watermark, full_at = started_at, started_at if is_whole else None",
            "watermark, full_at = newest or started_at, started_at if is_whole else None",
        ),),
        ("tests/load/test_commit.py::test_s3_the_watermark_is_when_the_walk_began_not_what_it_saw",),
    ),
    Mutant(
        "no overlap between two readings", "S3", "pdsync.core.watermark.resume_point",
        (replace("watermark.astimezone(UTC) - overlap", "watermark.astimezone(UTC)"),),
        ("tests/core/test_watermark.py::test_s3_s15_o5_no_change_is_passed_over_because_a_clock_was_ahead",),
    ),
    Mutant(
        "watermark moves before its data", "S1 S4", "pdsync.load.commit.commit",
        (move("if batch.closes_walk: ...", before="with transaction(connection): ..."),),
        ("tests/load/test_commit.py::test_s4_an_error_at_any_step_of_a_commit_leaves_nothing",),
    ),
    Mutant(
        "watermark moves past a gap", "S4", "pdsync.core.watermark.advance",
        (drop("if since is not None and not is_whole and (not before or before.watermark < since): ..."),),
        ("tests/load/test_commit.py::test_s4_changes_since_some_time_move_no_watermark_past_what_was_never_read",),
    ),
    Mutant(
        "watermark of the other API version counts", "S4", "pdsync.runner.sync.walk_reader.WalkReader._since",
        (text(" AND version = ?", " AND ? IS NOT NULL"),),
        ("tests/runner/test_walk_reader.py::test_s4_what_one_version_of_the_api_has_read_says_nothing_of_the_other",),
    ),
    Mutant(
        "a chosen time within the overlap begins there", "S3 S4", "pdsync.core.watermark.chosen_point",
        (replace("min(chosen, resume) if chosen <= watermark else chosen", "chosen"),),
        ("tests/core/test_watermark.py::"
         "test_s3_s4_a_chosen_time_within_the_overlap_passes_over_nothing_that_becomes_visible_late",),
    ),
    Mutant(
        "since is sent in the zone it came in", "S3", "pdsync.extract.pages.query_of",
        (replace("since.astimezone(UTC)", "since"),),
        ("tests/extract/test_pages.py::test_s3_everything_is_read_by_id_and_changes_by_time_in_utc",),
    ),
    Mutant(
        "this machine's clock instead of the server's", "S3 O5", "pdsync.core.http.Http._served_at",
        (replace("self.clock.read(server_time)", "datetime.now(UTC)"),),
        ("tests/core/test_http.py::test_the_answer_carries_the_server_s_own_time_in_utc",),
    ),
    Mutant(
        "a date that jumps is believed", "O5", "pdsync.core.server_clock.ServerClock.read",
        (replace("date if abs(date - expected) <= TRUST else expected", "date"),),
        ("tests/core/test_server_clock.py::test_s3_o5_a_date_that_leaps_within_a_session_is_passed_over",),
    ),
    Mutant(
        "of a tie the older is kept", "S5", "pdsync.load.commit._compare",
        (replace('f"coalesce(s.{cursor} < t.{cursor}, false)"', 'f"coalesce(s.{cursor} <= t.{cursor}, false)"'),),
        ("tests/load/test_commit.py::test_s5_two_edits_within_one_second_both_land",),
    ),
    Mutant(
        "windows leave out the second they meet in", "S5", "pdsync.extract.windows.read",
        (replace("reached < progress.window.since", "reached <= progress.window.since"),),
        ("tests/extract/test_windows.py::test_s5_a_window_is_read_to_the_end_of_the_second_that_it_begins_with",),
    ),
    Mutant(
        "the older part of a cut window ends too early", "S3", "pdsync.core.control.windows.Windows.cut",
        (replace("(window.since, at)", "(window.since, window.since + (at - window.since) / 2)"),),
        ("tests/core/control/test_windows.py::test_two_windows_of_a_cut_cover_the_time_without_overlap",),
    ),
    Mutant(
        "a full page without paging is taken for the last", "S9", "pdsync.extract.pages._next_cursor",
        (drop("if not envelope.described and full and rows >= full: ..."),),
        ("tests/extract/test_pages.py::test_s9_a_silent_page_as_long_as_those_that_had_a_next_one_is_not_the_end",),
    ),
    Mutant(
        "a repeated page is taken for the end", "S9", "pdsync.extract.pages._cursor_pages",
        (replace("raise _repeated(target.operation, page)", "return"),),
        ("tests/extract/test_pages.py::test_a_page_that_repeats_ends_the_walk",),
    ),
    Mutant(
        "quarantined records leave the exit code 0", "S9", "pdsync.runner.report.receipt.conclude",
        (drop("if entry.quarantined: ..."),),
        ("tests/runner/test_receipt.py::test_s9_a_stream_is_complete_only_if_no_gap_names_it",),
    ),
    # What is kept.
    Mutant(
        "walk ids are used again", "S1", "pdsync.core.control.walks.insert_walk",
        (replace("by_clock if by_clock > newest else newest + 1 + secrets.randbits(32)", "newest + 1"),),
        ("tests/core/control/test_walks.py::test_s4_no_walk_gets_an_id_again_whatever_happened_to_the_file_or_the_clock",),
    ),
    Mutant(
        "a page is sealed without fsync", "S1", "pdsync.extract.raw_archive.Archive._seal",
        (drop("os.fsync(self._file)"),),
        ("tests/extract/test_raw_archive.py::test_s1_a_page_is_on_disk_before_control_db_names_it",),
    ),
    Mutant(
        "a page is read back without its checksum", "O4", "pdsync.extract.raw_archive.read",
        (drop("if hashlib.sha256(body).digest() != sealed.sha256: ..."),),
        ("tests/extract/test_raw_archive.py::test_o4_a_flipped_bit_is_noticed",),
    ),
    Mutant(
        "the archive is pruned of what wrote rows", "S14", "pdsync.runner.archive.upkeep.plan_prune",
        (replace("written.get(walk.id) == 0", "walk.id in written"),),
        ("tests/runner/test_upkeep.py::test_s14_only_walks_that_wrote_nothing_are_removed",),
    ),
    Mutant(
        "versions overlap in history", "S12", "pdsync.load.commit._apply",
        (text("d.valid_from AS _valid_to", "d.served_at AS _valid_to"),),
        ("tests/load/test_commit.py::test_s2_s12_showing_all_of_it_again_changes_nothing",),
    ),
    Mutant(
        "publishing writes into the file that readers have", "S11", "pdsync.load.publish.publish",
        (replace('fresh = warehouse.with_name(f".{warehouse.name}.new")', "fresh = warehouse"),),
        ("tests/load/test_publish.py::test_s11_until_the_copy_is_on_disk_the_warehouse_is_the_old_one",),
    ),
    Mutant(
        "values that fit no column are dropped", "S16", "pdsync.normalise.stage.StagingTable._insert",
        (drop("has_new = (unfit and self._learn_misfits()) or has_new"),),
        ("tests/normalise/test_stage.py::test_a_key_or_a_misfit_is_noted_once_and_kept_in_every_row_that_has_it",),
    ),
    Mutant(
        "a custom field is known by its label", "S16", "pdsync.normalise.tables.assign",
        (replace(
            "fields.get((code, kind))",
            "next((each for each in fields.values() if (each.label, each.type) == (label, kind)), None)",
        ),),
        ("tests/normalise/test_tables.py::test_s16_equal_labels_keep_their_columns_in_whatever_order_they_come",),
    ),
    # What is taken for deleted, and for repaired.
    Mutant(
        "absence is taken for a deletion", "S8", "pdsync.reconcile.evidence.judge",
        (replace(
            'if probe is None:\n return Verdict(key, "absent_unknown", reason)',
            'if probe is None:\n return Verdict(key, "purged", reason)',
        ),),
        ("tests/reconcile/test_evidence.py",),
    ),
    Mutant(
        "a 404 counts although no canary answers", "S8", "pdsync.reconcile.evidence.do_canaries_answer",
        (replace("bool(canaries) and all(each.status == 200 and each.record for each in canaries.values())", "True"),),
        ("tests/reconcile/test_evidence.py::test_s8_a_404_counts_only_while_canaries_answer",),
    ),
    Mutant(
        "a 404 counts although the token sees only a part", "S8",
        "pdsync.reconcile.evidence.weigh_404",
        (replace("not is_admin", "False"),),
        ("tests/runner/test_diagnosis.py::test_s8_a_404_is_evidence_only_for_an_administrator_and_while_canaries_answer",),
    ),
    Mutant(
        "a repair is claimed unchecked", "S7", "pdsync.runner.reconcile.repair.Repair._confirm",
        (replace("shown - different", "set(keys)"),),
        ("tests/runner/test_repair.py::test_s7_a_repair_is_claimed_only_if_the_row_equals_the_source",),
    ),
    Mutant(
        "a deletion is as old as its server's clock", "S7 O5", "pdsync.runner.report.applied_changes._executed_at",
        (replace("max(filter(None, (at, read_until)))", "at"),),
        ("tests/runner/test_applied_changes.py::test_s7_o5_a_deletion_is_later_than_what_was_read_before_it",),
    ),
    Mutant(
        "what a list still shows keeps its row alive", "S7", "pdsync.runner.report.applied_changes.find_pending",
        (replace("at if is_back else max(at, seen_at)", "at"),),
        ("tests/runner/test_applied_changes.py::test_s7_o5_a_deletion_is_later_than_what_was_read_before_it",),
    ),
    # Limits.
    Mutant(
        "each process has a limiter of its own", "L1", "pdsync.core.budget.Budget.__init__",
        (replace("hashlib.sha256(token.encode())", 'hashlib.sha256(f"{token}{os.getpid()}".encode())'),),
        ("tests/core/test_budget.py::test_l1_three_processes_with_one_token_share_the_window",),
    ),
    Mutant(
        "a request counts from its sending", "L1", "pdsync.core.budget.Budget.spend.answered",
        (replace("time.monotonic()", "began"),),
        ("tests/core/test_budget.py::test_l1_no_two_seconds_of_the_server_hold_more_than_the_limit",),
    ),
    Mutant(
        "what others spend of the day is not counted", "L5", "pdsync.core.token_ledger.tokens_left",
        (drop("if server_remaining is not None and spent_then is not None: ..."),),
        ("tests/core/test_budget.py::test_l5_what_the_server_says_is_left_counts_for_more_than_our_sum",),
    ),
    Mutant(
        "after a 429 other processes go on", "L3", "pdsync.core.budget.Budget.pause",
        (text("'burst:' || ?", "'burst of one process:' || ?"),),
        ("tests/core/test_budget.py::test_l3_a_pause_holds_for_every_process_of_the_token",),
    ),
    Mutant(
        "a block by abuse protection is one refusal", "L4", "pdsync.core.answer.judge",
        (drop("if status == 403 and _is_page(answer): ..."),),
        ("tests/core/test_answer.py::test_l4_a_403_that_is_no_json_is_abuse_protection",),
    ),
    Mutant(
        "retries have no budget", "L6", "pdsync.core.http.Http._repeated",
        (drop("self._retry_tokens -= 1"),),
        ("tests/core/test_http.py::test_l6_a_server_that_fails_every_call_is_not_overloaded",),
    ),
    # What is written.
    Mutant(
        "a POST is sent again after a lost answer", "W4", "pdsync.core.answer.answer_is_unknown",
        (replace('method != "GET" and not failure.refused', "False"),),
        ("tests/core/test_answer.py::test_w4_trouble_of_the_server_may_be_repeated_and_leaves_a_write_unknown",),
    ),
    Mutant(
        "one probe is enough to add again", "W4", "pdsync.writeback.unknown_outcomes.UnknownOutcomes._probe",
        (replace("not is_add or absent > 0", "True"),),
        ("tests/writeback/test_unknown_outcomes.py::test_w4_how_an_unknown_outcome_ends",),
    ),
    Mutant(
        "the attempt is recorded after the request", "W3", "pdsync.writeback.sender.Sender._attempt",
        (
            replace("request_of_call(call, before_send=lambda: self._arm(sending, call))", "request_of_call(call)"),
            replace(
                "answer = await self.http.send(request)",
                "answer = await self.http.send(request)\nawait self._arm(sending, call)",
            ),
        ),
        ("tests/writeback/test_sender.py::test_w3_when_a_write_arrives_its_attempt_is_on_disk_with_what_was_there_before",),
    ),
    Mutant(
        "the journal is written without fsync", "W11", "pdsync.writeback.journal.Journal.append",
        (drop("os.fsync(handle)"),),
        ("tests/writeback/test_journal.py::test_w11_what_was_appended_is_on_disk_when_append_returns",),
    ),
    Mutant(
        "a probe finds an addition by its name alone", "W2", "pdsync.writeback.probe._probe_add",
        (replace("dict(fields(prepared.body))", "dict(list(fields(prepared.body))[:1])"),),
        ("tests/writeback/test_probe.py::test_w2_w4_a_record_of_the_same_name_is_not_ours_unless_all_that_was_sent_is_equal",),
    ),
    Mutant(
        "a merge is proved by the loser's absence", "W2", "pdsync.writeback.probe._probe_merge",
        (replace(
            'ProbeOutcome("undecidable", request, f"{merged.target} is gone, but {proof.against}")',
            'ProbeOutcome("happened", request, proof.against, winner.record)',
        ),),
        ("tests/writeback/test_probe.py::test_w2_a_merge_is_proved_by_what_only_it_moves",),
    ),
    Mutant(
        "an update is sent although the record has changed", "W6", "pdsync.writeback.precondition._decide_update",
        (replace('policy != "ours"', "False"),),
        ("tests/writeback/test_precondition.py::test_w6_update",),
    ),
    Mutant(
        "applied although the field was ignored", "W7", "pdsync.writeback.verification.judge_update",
        (replace("changed_fields(record, dict(fields(prepared.body)))", "()"),),
        ("tests/writeback/test_verification.py::test_w7_update",),
    ),
    Mutant(
        "changes of one record overtake each other", "W5", "pdsync.writeback.dependencies.find_predecessors",
        (replace("before | (each.references & own_ids)", "each.references & own_ids"),),
        ("tests/writeback/test_dependencies.py::test_w5_order",),
    ),
    Mutant(
        "of two limits of deletions the larger counts", "W8", "pdsync.writeback.guards.compute_max_deletes",
        (replace("min(50, rows // 100)", "max(50, rows // 100)"),),
        ("tests/writeback/test_guards.py::test_w8_deletes",),
    ),
    Mutant(
        "the first few are not tried before the rest", "W8", "pdsync.writeback.executor.PushExecutor.run",
        (drop("await self._send_ready(canary)"),),
        ("tests/writeback/test_executor.py::test_w8_too_many_failures_stop_a_push",
         "tests/writeback/test_executor.py::test_w8_where_there_are_merges_one_mutation_goes_first",),
    ),
    Mutant(
        "undo overwrites what others changed since", "W12", "pdsync.writeback.undo._restore",
        (replace(
            "_make_entry(mutation, operation, payload, expected)", "_make_entry(mutation, operation, payload, None)"
        ),),
        ("tests/writeback/test_undo.py::test_w12_an_update_is_undone_where_our_value_still_stands",),
    ),
    Mutant(
        "undo deletes what may be another's", "W12", "pdsync.writeback.undo._delete_added",
        (drop('if mutation.reason == "seen": ...'),),
        ("tests/writeback/test_undo.py::test_w12_an_addition_that_may_not_be_ours_is_left_alone",),
    ),
    Mutant(
        "an option is looked up by id before its label", "W2", "pdsync.writeback.typed_values._matching_options",
        (replace(
            "named + [each for each in options if each.id == text and each not in named]",
            "[each for each in options if each.id == text] or named",
        ),),
        ("tests/writeback/test_choices.py",),
    ),
    # Who may see and do what.
    Mutant(
        "a token of another company is accepted", "X1", "pdsync.core.control.runs.Runs.check_company",
        (drop("if bound and bound[0] != company_id: ..."),),
        ("tests/core/control/test_runs.py::test_x1_a_project_belongs_to_one_company_for_good",),
    ),
    Mutant(
        "a redirect is followed with the token", "X3", "pdsync.core.http.Http._exchange",
        (replace("False", "True"),),
        ("tests/core/test_http.py::test_x3_a_redirect_is_not_followed_and_the_token_stays_here",),
    ),
    Mutant(
        "a file's storage receives the token", "X3", "pdsync.core.http.Http._fetch",
        (replace(
            "session.get(target, allow_redirects=False, timeout=_timeout(None, _SILENT_S), **proxy)",
            "session.get(target, allow_redirects=False, timeout=_timeout(None, _SILENT_S),"
            " headers=await self._credentials.headers(), **proxy)",
        ),),
        ("tests/extract/test_attachments.py::test_x2_a_redirect_is_followed_once_without_any_credential",),
    ),
    Mutant(
        "a private file is readable by all", "X5", "pdsync.core.secret_store.write_private",
        (replace("os.fchmod(handle, 0o600)", "os.fchmod(handle, 0o644)"),),
        ("tests/core/test_secret_store.py::test_x5_umask_000_still_makes_a_private_file_in_a_private_folder",),
    ),
    Mutant(
        "a quote in a label ends the identifier", "X6", "pdsync.sql.quoted",
        (replace("""part.replace("\\0", "").replace('"', '""')""", "part"),),
        ("tests/core/test_sql.py::test_x6_what_people_try_is_only_a_name_or_only_a_value",),
    ),
    Mutant(
        "a refresh token is used before it is stored", "X9", "pdsync.core.oauth.OAuth._exchange",
        (replace("return new, self._vault.put(new, location)", "return new, location"),),
        ("tests/core/test_oauth.py::test_whatever_a_renewal_brings_is_stored",),
    ),
    Mutant(
        "two processes renew a grant at once", "X9", "pdsync.core.secret_store.Vault.locked",
        (replace("fcntl.LOCK_EX", "fcntl.LOCK_SH"),),
        ("tests/core/test_secret_store.py::test_the_vault_waits_for_its_holder_and_not_for_ever",),
    ),
    Mutant(
        "a formula in a name reaches the spreadsheet", "X10", "pdsync.core.cells.guarded",
        (replace("""f"'{text}" if _GUARDED.match(text) else text""", "text"),),
        ("tests/core/test_cells.py",),
    ),
    Mutant(
        "a lease is taken while its owner renews it", "O1", "pdsync.fleet.lease.acquire",
        (replace("other.ttl_s + _RESOLUTION_S - age_s", "-1.0"),),
        ("tests/fleet/test_lease.py::test_a_lease_that_is_renewed_is_not_taken",),
    ),
    Mutant(
        "an owner whose lease has expired goes on", "O1", "pdsync.fleet.lease.Lease._watch",
        (drop("self.lose()"),),
        ("tests/fleet/test_lease.py::test_o1_an_owner_whose_renewals_fail_gives_up_before_its_lease_expires",),
    ),
)  # fmt: skip
