-- Times are microseconds since the Unix epoch.
CREATE TABLE destinations (
    uid                 BLOB    NOT NULL PRIMARY KEY,
    organization        TEXT    NOT NULL,
    id                  TEXT    NOT NULL,
    display_name        TEXT    NOT NULL,
    -- The display name with case folded away for all of Unicode, which SQLite cannot do itself.
    display_name_folded TEXT    NOT NULL,
    -- JSON: what a destination does, where, and with which mapping. It has no version number: a
    -- program refuses what holds words that it does not know. A new setting is a new word.
    settings            TEXT    NOT NULL,
    state               TEXT    NOT NULL,
    revision            INTEGER NOT NULL,
    create_micros       INTEGER NOT NULL,
    update_micros       INTEGER NOT NULL,
    -- JSON, sealed: the nonce, then the ciphertext with its tag.
    secrets             BLOB    NOT NULL,
    -- The key that sealed them, by its id in the keys file.
    secrets_key_id      TEXT    NOT NULL,
    UNIQUE (organization, id)
) STRICT;

CREATE INDEX destinations_in_list_order
    ON destinations (organization, create_micros DESC, uid DESC);

-- Requests that took effect, so that none takes effect twice. They outlive their destination:
-- a create that is sent again after a delete must not bring the destination back.
CREATE TABLE requests (
    organization   TEXT    NOT NULL,
    request_id     BLOB    NOT NULL,
    -- SHA-256 of the request's body.
    fingerprint    BLOB    NOT NULL,
    destination_id TEXT    NOT NULL,
    uid            BLOB    NOT NULL,
    request_micros INTEGER NOT NULL,
    PRIMARY KEY (organization, request_id)
) STRICT;

CREATE INDEX requests_by_age ON requests (request_micros);
