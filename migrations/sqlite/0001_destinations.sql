-- Times are microseconds since the Unix epoch. Tokens are sealed before they come here.
CREATE TABLE destinations (
    uid                 BLOB    NOT NULL PRIMARY KEY,
    organization        TEXT    NOT NULL,
    id                  TEXT    NOT NULL,
    display_name        TEXT    NOT NULL,
    -- The display name with case folded away for all of Unicode, which SQLite cannot do itself.
    display_name_folded TEXT    NOT NULL,
    action              TEXT    NOT NULL,
    client_side_id      TEXT    NOT NULL,
    instance            TEXT    NOT NULL,
    -- JSON.
    mapping             TEXT    NOT NULL,
    state               TEXT    NOT NULL,
    revision            INTEGER NOT NULL,
    create_micros       INTEGER NOT NULL,
    update_micros       INTEGER NOT NULL,
    -- The access token: which key sealed it, with which nonce, into what.
    token_key_id        TEXT    NOT NULL,
    token_nonce         BLOB    NOT NULL,
    token_ciphertext    BLOB    NOT NULL,
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
