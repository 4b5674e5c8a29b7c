-- Types are those that SQLite and PostgreSQL share: TEXT, BIGINT, BLOB. Moments are UTC milliseconds, identifiers
-- UUIDv7 in text, truth is 0 or 1.

-- One row: which audit log this is and where it ends.
CREATE TABLE audit_log (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    id TEXT NOT NULL,
    last_sequence BIGINT NOT NULL,
    last_hash TEXT NOT NULL
);

CREATE TABLE audit_entries (
    sequence BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id TEXT,
    organisation_id TEXT,
    action TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object_id TEXT,
    outcome TEXT NOT NULL,
    reason TEXT,
    address TEXT,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_entries_at ON audit_entries (at);
CREATE INDEX audit_entries_actor ON audit_entries (actor_id, sequence);
CREATE INDEX audit_entries_object ON audit_entries (object_id, sequence);
CREATE INDEX audit_entries_organisation ON audit_entries (organisation_id, sequence);

CREATE TABLE audit_heads (
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    hash TEXT NOT NULL,
    key TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (sequence, at)
);

-- only sqlite
CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries
BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END;
CREATE TRIGGER audit_entries_are_kept BEFORE DELETE ON audit_entries
BEGIN SELECT RAISE(ABORT, 'audit entries are never removed'); END;
-- end
-- only postgres
CREATE FUNCTION audit_entries_stay() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'audit entries are never changed or removed'; END $$;
CREATE TRIGGER audit_entries_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_stay();
-- end

CREATE TABLE organisations (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    -- 1 province to 5 village; 0 for what has no level of its own.
    level BIGINT NOT NULL,
    name TEXT NOT NULL,
    -- As it is searched for: `name` in one width and case, and the first letters of its pinyin.
    search_name TEXT NOT NULL,
    initials TEXT NOT NULL,
    parent_id TEXT REFERENCES organisations (id),
    cascade_parent_id TEXT REFERENCES organisations (id),
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    closed_at BIGINT,
    -- Counts its changes; who changes it says which one was seen.
    version BIGINT NOT NULL,
    -- Its code, or pinyin where it has none, and its id: the order of lists.
    sort_key TEXT NOT NULL
);
CREATE INDEX organisations_parent ON organisations (parent_id, sort_key);
CREATE INDEX organisations_cascade_parent ON organisations (cascade_parent_id);
CREATE INDEX organisations_sort_key ON organisations (sort_key);
CREATE INDEX organisations_initials ON organisations (initials);

-- Every organisation with each one above it, and with itself at depth 0.
CREATE TABLE organisation_lineages (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    ancestor_id TEXT NOT NULL REFERENCES organisations (id),
    depth BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, ancestor_id)
);
CREATE INDEX organisation_lineages_ancestor ON organisation_lineages (ancestor_id, organisation_id);

-- Which division code an organisation had from when until when.
CREATE TABLE division_codes (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    code TEXT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_to BIGINT,
    PRIMARY KEY (organisation_id, code, valid_from)
);
CREATE UNIQUE INDEX division_codes_now ON division_codes (code) WHERE valid_to IS NULL;
CREATE UNIQUE INDEX division_codes_one ON division_codes (organisation_id) WHERE valid_to IS NULL;

-- What each version of an organisation was.
CREATE TABLE organisation_history (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    version BIGINT NOT NULL,
    at BIGINT NOT NULL,
    change TEXT NOT NULL,
    name TEXT NOT NULL,
    level BIGINT NOT NULL,
    code TEXT,
    parent_id TEXT,
    cascade_parent_id TEXT,
    state TEXT NOT NULL,
    PRIMARY KEY (organisation_id, version)
);

-- What became of an organisation that was merged or split.
CREATE TABLE organisation_successors (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    successor_id TEXT NOT NULL REFERENCES organisations (id),
    at BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, successor_id)
);

-- What one organisation lets another see of it, for what and until when.
CREATE TABLE organisation_shares (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    with_id TEXT NOT NULL REFERENCES organisations (id),
    actions TEXT NOT NULL,
    purpose TEXT NOT NULL,
    ends_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX organisation_shares_organisation ON organisation_shares (organisation_id);

-- Halls and rooms.
CREATE TABLE places (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    uses TEXT NOT NULL,
    screens BIGINT NOT NULL,
    seats BIGINT,
    closed_at BIGINT,
    version BIGINT NOT NULL,
    sort_key TEXT NOT NULL
);
CREATE INDEX places_organisation ON places (organisation_id, sort_key);

CREATE TABLE persons (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL,
    search_name TEXT NOT NULL,
    initials TEXT NOT NULL,
    login TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    left_at BIGINT,
    version BIGINT NOT NULL,
    sort_key TEXT NOT NULL
);
CREATE UNIQUE INDEX persons_login ON persons (login);
CREATE INDEX persons_organisation ON persons (organisation_id, sort_key);

CREATE TABLE posts (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    title TEXT NOT NULL,
    roles TEXT NOT NULL,
    closed_at BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX posts_organisation ON posts (organisation_id);

CREATE TABLE post_holders (
    post_id TEXT NOT NULL REFERENCES posts (id),
    person_id TEXT NOT NULL REFERENCES persons (id),
    starts_at BIGINT NOT NULL,
    ends_at BIGINT,
    PRIMARY KEY (post_id, person_id, starts_at)
);
CREATE INDEX post_holders_person ON post_holders (person_id);

-- Roles that somebody has without a post: delegated by who has them, or as a guest in one matter. Always with an end.
CREATE TABLE temporary_grants (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    person_id TEXT NOT NULL REFERENCES persons (id),
    role TEXT NOT NULL,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    matter_id TEXT,
    from_person_id TEXT REFERENCES persons (id),
    from_post_id TEXT REFERENCES posts (id),
    purpose TEXT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX temporary_grants_person ON temporary_grants (person_id);
CREATE INDEX temporary_grants_from ON temporary_grants (from_person_id);

CREATE TABLE invitations (
    id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    person_id TEXT NOT NULL REFERENCES persons (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX invitations_person ON invitations (person_id);

CREATE TABLE passwords (
    person_id TEXT PRIMARY KEY REFERENCES persons (id),
    hash TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    earlier TEXT NOT NULL
);

-- How often somebody failed to sign in, under a name and from where.
CREATE TABLE sign_in_failures (
    counter TEXT PRIMARY KEY,
    failures BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL
);

CREATE TABLE factors (
    id TEXT PRIMARY KEY,
    person_id TEXT NOT NULL REFERENCES persons (id),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    secret BLOB NOT NULL,
    confirmed_at BIGINT,
    last_used_at BIGINT,
    last_step BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX factors_person ON factors (person_id);

CREATE TABLE recovery_codes (
    person_id TEXT NOT NULL REFERENCES persons (id),
    hash TEXT NOT NULL,
    used_at BIGINT,
    PRIMARY KEY (person_id, hash)
);

-- What waits for the browser's answer: a passkey to be made or to be shown.
CREATE TABLE ceremonies (
    id TEXT PRIMARY KEY,
    person_id TEXT NOT NULL REFERENCES persons (id),
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    person_id TEXT NOT NULL REFERENCES persons (id),
    device TEXT NOT NULL,
    address TEXT,
    created_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- How the person was recognised: `password`, or `password` and a second factor; and when last.
    strength TEXT NOT NULL,
    verified_at BIGINT NOT NULL,
    ended_at BIGINT,
    ended_because TEXT
);
CREATE INDEX sessions_person ON sessions (person_id);

CREATE TABLE device_keys (
    id TEXT PRIMARY KEY,
    place_id TEXT NOT NULL REFERENCES places (id),
    name TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    created_by TEXT,
    last_used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX device_keys_place ON device_keys (place_id);
