-- What pdsync knows about the tables, beside them and queryable with them. All times are UTC.
CREATE SCHEMA IF NOT EXISTS meta;
CREATE SCHEMA IF NOT EXISTS history;   -- views: every version of every row
CREATE SCHEMA IF NOT EXISTS versions;  -- tables: the versions that are no longer current
CREATE SCHEMA IF NOT EXISTS labeled;
CREATE SCHEMA IF NOT EXISTS sales;

CREATE TABLE IF NOT EXISTS meta.company (company_id BIGINT NOT NULL, name VARCHAR);

-- One row a run: its receipt. The receipt by stream stands in meta.streams.
CREATE TABLE IF NOT EXISTS meta.runs (
    run_id VARCHAR NOT NULL, command VARCHAR, started_at TIMESTAMPTZ, finished_at TIMESTAMPTZ, complete BOOLEAN,
    exit_code INTEGER, requests BIGINT, tokens BIGINT, gaps VARCHAR[]
);
-- When the first list of the run was begun, by the server's clock: what changed later may be missing, and the next run reads it.
ALTER TABLE meta.runs ADD COLUMN IF NOT EXISTS as_of TIMESTAMPTZ;
-- The token's user: what that user may not see is not in the tables.
ALTER TABLE meta.runs ADD COLUMN IF NOT EXISTS user_id BIGINT;
ALTER TABLE meta.runs ADD COLUMN IF NOT EXISTS user_name VARCHAR;
ALTER TABLE meta.runs ADD COLUMN IF NOT EXISTS is_admin BOOLEAN;
CREATE TABLE IF NOT EXISTS meta.streams (
    run_id VARCHAR NOT NULL, stream VARCHAR NOT NULL, requests BIGINT, tokens BIGINT, read BIGINT, inserted BIGINT,
    updated BIGINT, deleted BIGINT, unchanged BIGINT, quarantined BIGINT, schema_changes BIGINT, complete BOOLEAN,
    error VARCHAR
);
-- What proves that the table is complete: keys at the source when it was last read whole, rows here, and how many of them
-- the source has shown within the verify cycle.
ALTER TABLE meta.streams ADD COLUMN IF NOT EXISTS at_source BIGINT;
ALTER TABLE meta.streams ADD COLUMN IF NOT EXISTS here BIGINT;
ALTER TABLE meta.streams ADD COLUMN IF NOT EXISTS verified DOUBLE;   -- share, from 0 to 1
ALTER TABLE meta.streams ADD COLUMN IF NOT EXISTS oldest_verified_at TIMESTAMPTZ;

-- Until when each list has been read without a gap. `watermark` is the server's time at the first request of the walk.
CREATE TABLE IF NOT EXISTS meta.checkpoints (
    stream VARCHAR NOT NULL, source VARCHAR NOT NULL, version VARCHAR NOT NULL, watermark TIMESTAMPTZ NOT NULL,
    full_at TIMESTAMPTZ, walk BIGINT NOT NULL, run_id VARCHAR NOT NULL
);
-- The newest change that the list had shown by then, less the time that the reading took: nothing before it was missed,
-- whatever the server's clock said.
ALTER TABLE meta.checkpoints ADD COLUMN IF NOT EXISTS newest TIMESTAMPTZ;

-- Losers of merges and the records that took their place.
CREATE TABLE IF NOT EXISTS meta.merges (
    entity VARCHAR NOT NULL, loser_id BIGINT NOT NULL, winner_id BIGINT, confidence VARCHAR, seen_at TIMESTAMPTZ,
    run_id VARCHAR
);

CREATE TABLE IF NOT EXISTS meta.custom_fields (
    entity VARCHAR NOT NULL, field_code VARCHAR NOT NULL, label VARCHAR, column_name VARCHAR NOT NULL,
    field_type VARCHAR NOT NULL, first_seen TIMESTAMPTZ, last_seen TIMESTAMPTZ
);
-- Options of single and multiple choice fields, custom and built-in.
CREATE TABLE IF NOT EXISTS meta.field_options (
    entity VARCHAR NOT NULL, field_code VARCHAR NOT NULL, option_id VARCHAR NOT NULL, label VARCHAR
);
CREATE TABLE IF NOT EXISTS meta.schema_changes (
    run_id VARCHAR, seen_at TIMESTAMPTZ, entity VARCHAR, kind VARCHAR, name VARCHAR, detail VARCHAR
);
-- Records that could not be read, with their bytes.
CREATE TABLE IF NOT EXISTS meta.quarantine (
    run_id VARCHAR, stream VARCHAR, walk BIGINT, page BIGINT, position BIGINT, reason VARCHAR, record BLOB
);
-- The trail of every change that pdsync sent to Pipedrive.
CREATE TABLE IF NOT EXISTS meta.mutations (
    id VARCHAR NOT NULL, queued_at TIMESTAMPTZ, queued_by VARCHAR, operation VARCHAR, entity VARCHAR, target_id VARCHAR,
    payload JSON, base_image JSON, after_image JSON, state VARCHAR, outcome VARCHAR, reason VARCHAR, remote_id VARCHAR,
    push_id VARCHAR, attempts BIGINT, settled_at TIMESTAMPTZ
);
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS seq BIGINT;      -- #12
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS verb VARCHAR;    -- add, update, delete, merge, other
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS detail VARCHAR;
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS evidence JSON;   -- every attempt and every look, as kept
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS undo_of VARCHAR; -- the mutation that it takes back
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS resolution JSON; -- what a person found out, where it needed a look
-- With these, control.db can take a mutation over from here if it was lost.
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS batch VARCHAR;
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS dedupe_key VARCHAR;
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS company_id BIGINT;
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS expected JSON;
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS supersedes VARCHAR;
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS bound VARCHAR;
-- The run that brought what it changed into the tables; NULL: none has yet.
ALTER TABLE meta.mutations ADD COLUMN IF NOT EXISTS reflected_by VARCHAR;
-- What the row hashes of each table are made of.
CREATE TABLE IF NOT EXISTS meta._row_hashes (table_name VARCHAR NOT NULL, made_of VARCHAR NOT NULL);
-- What the views and comments were made from, by stream or schema: they are made again only when that changes.
CREATE TABLE IF NOT EXISTS meta._views (made_of VARCHAR NOT NULL);
ALTER TABLE meta._views ADD COLUMN IF NOT EXISTS part VARCHAR;
-- Which batches of sealed pages the tables hold, and what each changed. Watermarks and receipts are derived from it.
CREATE TABLE IF NOT EXISTS meta._applied_batches (
    walk BIGINT NOT NULL, batch BIGINT NOT NULL, last_page BIGINT NOT NULL, run_id VARCHAR NOT NULL,
    stream VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL, read BIGINT, inserted BIGINT, updated BIGINT,
    deleted BIGINT, unchanged BIGINT, quarantined BIGINT, schema_changes BIGINT
);
-- What reconcile has found: a record that the source shows otherwise than the tables did, and what was done about it.
CREATE TABLE IF NOT EXISTS meta.findings (
    run_id VARCHAR NOT NULL, seen_at TIMESTAMPTZ, stream VARCHAR NOT NULL, key VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    evidence VARCHAR, winner VARCHAR, repaired BOOLEAN
);
-- What each sweep, and each reading of a whole stream, has counted: keys at the source, keys here, rows seen to be the
-- same, differences left. `complete`: it was the whole stream, not a sample.
CREATE TABLE IF NOT EXISTS meta.sweeps (
    run_id VARCHAR NOT NULL, swept_at TIMESTAMPTZ, stream VARCHAR NOT NULL, at_source BIGINT, here BIGINT,
    verified BIGINT, differences BIGINT, complete BOOLEAN
);
-- Records that count more or fewer of what hangs on them than their own list showed when it was read to its end:
-- deals/12 says 5 (its products_count), its list showed 3, and 3 stood here. reconcile reads the list again when the
-- count or the rows here move, or with --deep.
CREATE TABLE IF NOT EXISTS meta.counts_off (
    run_id VARCHAR NOT NULL, read_at TIMESTAMPTZ, stream VARCHAR NOT NULL, parent VARCHAR NOT NULL, key VARCHAR NOT NULL,
    says BIGINT, listed BIGINT, here BIGINT
);
-- targets.csv of the project, line by line: see sales.targets.
CREATE TABLE IF NOT EXISTS meta.targets (
    line BIGINT NOT NULL, period VARCHAR NOT NULL, first_day DATE NOT NULL, last_day DATE NOT NULL, owner_id BIGINT,
    pipeline_id BIGINT, currency VARCHAR NOT NULL, target DECIMAL(18, 4) NOT NULL
);
