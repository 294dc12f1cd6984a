-- Core tables: what is watched, what was asked, what runs where, and what it said.
-- Types are TEXT, BIGINT and DOUBLE PRECISION only; times are milliseconds since 1970 (UTC);
-- JSON stands in TEXT; yes and no are 1 and 0.

CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    -- JSON of how it speaks with its forge; secrets by reference.
    forge TEXT NOT NULL,
    default_branch TEXT,
    -- Where the token for git lies, never its value.
    credential TEXT,
    created_at BIGINT NOT NULL,
    checked_at BIGINT,
    -- Why the last look at the remote failed; null after one that did not.
    problem TEXT
);

-- The last commit of each ref that was planned.
CREATE TABLE refs (
    project TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (project, name)
);

-- Verified messages of forges: each is taken once.
CREATE TABLE deliveries (
    project TEXT NOT NULL REFERENCES projects (id),
    delivery TEXT NOT NULL,
    event TEXT NOT NULL,
    body TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    handled_at BIGINT,
    PRIMARY KEY (project, delivery)
);

CREATE TABLE pipelines (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id),
    number BIGINT NOT NULL,
    -- Makes planning idempotent: the same trigger never makes two pipelines.
    trigger_key TEXT NOT NULL,
    trigger_kind TEXT NOT NULL,
    trigger_json TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    reference TEXT,
    subject TEXT NOT NULL,
    author TEXT NOT NULL,
    -- JSON of the failure where nothing could be planned.
    problem TEXT,
    -- JSON of what is worth saying about the plan.
    notes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (project, trigger_key),
    UNIQUE (project, number)
);
CREATE INDEX pipelines_of_commit ON pipelines (project, commit_id);

CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    pipeline TEXT NOT NULL REFERENCES pipelines (id),
    project TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    definition TEXT NOT NULL,
    -- What an equal job has in common with it; null where no result may stand for it.
    job_key TEXT,
    trust TEXT NOT NULL,
    spec TEXT NOT NULL,
    -- JSON of fingerprint, lock, and what is said about the plan.
    lineage TEXT NOT NULL,
    -- JSON of the state, its word for indexes, and the version that guards it.
    state TEXT NOT NULL,
    word TEXT NOT NULL,
    version BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    -- Why no host has it yet, in one sentence.
    reason TEXT,
    created_at BIGINT NOT NULL,
    queued_at BIGINT,
    finished_at BIGINT,
    UNIQUE (pipeline, name)
);
CREATE INDEX jobs_by_word ON jobs (word);
CREATE INDEX jobs_by_key ON jobs (project, job_key);

CREATE INDEX jobs_by_name ON jobs (project, name);

-- What a job's key was made of: large, and read only to explain.
CREATE TABLE plans (
    job TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id),
    planned TEXT NOT NULL
);

CREATE TABLE agents (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    secret_hash TEXT NOT NULL,
    version TEXT NOT NULL,
    inventory TEXT NOT NULL,
    inventory_hash TEXT NOT NULL,
    accepting BIGINT NOT NULL,
    closed TEXT,
    registered_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);

CREATE TABLE registration_tokens (
    token_hash TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    agent TEXT REFERENCES agents (id)
);

CREATE TABLE attempts (
    id TEXT NOT NULL PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (id),
    agent TEXT NOT NULL REFERENCES agents (id),
    number BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    -- JSON of the order without secrets.
    order_json TEXT NOT NULL,
    -- open, finished, lost or abandoned.
    fate TEXT NOT NULL,
    phase TEXT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    -- JSON of the outcome, and of the agent's report where there is one.
    outcome TEXT,
    report TEXT,
    UNIQUE (job, number)
);
CREATE INDEX attempts_of_agent ON attempts (agent, fate);

-- What is taken on hosts. A row goes when the agent says that all of it is free and clean.
CREATE TABLE bookings (
    attempt TEXT NOT NULL PRIMARY KEY REFERENCES attempts (id),
    agent TEXT NOT NULL REFERENCES agents (id),
    cpu_millis BIGINT NOT NULL,
    memory BIGINT NOT NULL
);
CREATE TABLE booked_gpus (
    agent TEXT NOT NULL REFERENCES agents (id),
    gpu TEXT NOT NULL,
    attempt TEXT NOT NULL REFERENCES bookings (attempt),
    PRIMARY KEY (agent, gpu)
);

CREATE TABLE events (
    attempt TEXT NOT NULL REFERENCES attempts (id),
    seq BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (attempt, seq)
);

CREATE TABLE blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
-- Who showed that it has the content: only these may link it.
CREATE TABLE blob_owners (
    digest TEXT NOT NULL REFERENCES blobs (digest),
    agent TEXT NOT NULL REFERENCES agents (id),
    PRIMARY KEY (digest, agent)
);
CREATE TABLE artifacts (
    attempt TEXT NOT NULL REFERENCES attempts (id),
    role TEXT NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    size BIGINT NOT NULL,
    PRIMARY KEY (attempt, role, path)
);
CREATE INDEX artifacts_of_blob ON artifacts (digest);
