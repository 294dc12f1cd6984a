-- Who may do what: API tokens, sessions of the pages, and what was done by whom.

CREATE TABLE tokens (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT
);

CREATE TABLE sessions (
    session_hash TEXT NOT NULL PRIMARY KEY,
    -- A session ends with its token.
    token TEXT NOT NULL REFERENCES tokens (name),
    expires_at BIGINT NOT NULL
);

CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    -- A token's name, or 'local' where no token is set.
    who TEXT NOT NULL,
    -- A verb and what it was done to: 'cancel job 01…'.
    action TEXT NOT NULL
);
