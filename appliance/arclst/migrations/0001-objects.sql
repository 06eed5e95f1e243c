-- Facts about the store itself: the cluster's id, the last command applied.
CREATE TABLE fact (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Every object as it is now.  The document is a versioned envelope (arstore::Migrate).
CREATE TABLE object (
    kind     TEXT NOT NULL,
    name     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

-- Which object refers to which; follows from the objects.
CREATE TABLE reference (
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    to_kind TEXT NOT NULL,
    to_name TEXT NOT NULL,
    PRIMARY KEY (kind, name, to_kind, to_name)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_to ON reference (to_kind, to_name);

-- One row for each committed change of the store.
CREATE TABLE revision (
    revision INTEGER NOT NULL PRIMARY KEY,
    time_ms  INTEGER NOT NULL,
    who      TEXT NOT NULL,
    cid      TEXT
) STRICT;

-- What each revision made of which object; no document: it was removed.
CREATE TABLE history (
    kind     TEXT NOT NULL,
    name     TEXT NOT NULL,
    revision INTEGER NOT NULL REFERENCES revision (revision) ON DELETE CASCADE,
    document TEXT,
    PRIMARY KEY (kind, name, revision)
) STRICT;
CREATE INDEX history_revision ON history (revision);

-- Secrets, encrypted: 24 bytes of nonce, then the ciphertext with its tag.  The owner is
-- `<Kind>/<name>` where the secret is an object's own.
CREATE TABLE secret (
    name   TEXT NOT NULL PRIMARY KEY,
    owner  TEXT,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX secret_owner ON secret (owner) WHERE owner IS NOT NULL;
