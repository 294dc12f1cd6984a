-- The embedded registry: runs, models, versions and candidates, aliases with history, lineage.

-- One run for each attempt that had a last word.
CREATE TABLE runs (
    -- 32 hex digits, made of the attempt's id: deriving twice gives one.
    id TEXT NOT NULL PRIMARY KEY,
    attempt TEXT NOT NULL UNIQUE REFERENCES attempts (id),
    job TEXT NOT NULL REFERENCES jobs (id),
    project TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    -- MLflow's word: FINISHED, FAILED or KILLED.
    status TEXT NOT NULL,
    -- JSON.
    lineage TEXT NOT NULL,
    goals TEXT NOT NULL,
    -- Why it left no version although its job names a model.
    problem TEXT,
    started_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL
);
CREATE INDEX runs_of_job ON runs (job);

-- The last value of each metric; curves lie in the events.
CREATE TABLE run_metrics (
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    -- Zero where the value is NaN or infinite: then the word says which.
    value DOUBLE PRECISION NOT NULL,
    word TEXT,
    step BIGINT NOT NULL,
    PRIMARY KEY (run, name)
);
CREATE TABLE run_params (
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, name)
);
CREATE TABLE run_tags (
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, name)
);

-- The run that stood for a job on the default branch, be it the job's own or an equal one's.
CREATE TABLE baselines (
    job TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id),
    project TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    run TEXT NOT NULL REFERENCES runs (id)
);
CREATE INDEX baselines_by_name ON baselines (project, name, job);

-- Finished jobs that the registry has looked at.
CREATE TABLE registered_jobs (
    job TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id),
    at BIGINT NOT NULL
);

CREATE TABLE models (
    name TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id),
    created_at BIGINT NOT NULL
);
CREATE TABLE model_versions (
    id TEXT NOT NULL PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models (name),
    -- Null for a candidate.
    version BIGINT,
    run TEXT NOT NULL UNIQUE REFERENCES runs (id),
    created_at BIGINT NOT NULL,
    promoted_by TEXT,
    promoted_why TEXT,
    promoted_at BIGINT,
    UNIQUE (model, version)
);
CREATE TABLE model_files (
    version TEXT NOT NULL REFERENCES model_versions (id),
    path TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    size BIGINT NOT NULL,
    PRIMARY KEY (version, path)
);
CREATE INDEX model_files_of_blob ON model_files (digest);

CREATE TABLE aliases (
    model TEXT NOT NULL REFERENCES models (name),
    alias TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
);
CREATE TABLE alias_changes (
    model TEXT NOT NULL REFERENCES models (name),
    -- Counts within the model, from 1.
    number BIGINT NOT NULL,
    alias TEXT NOT NULL,
    -- Null: it was taken away.
    version BIGINT,
    previous BIGINT,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (model, number)
);
