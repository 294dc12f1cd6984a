-- One truth for what a job left and what a client logged: experiments, runs, curves, datasets, logged models, and what a
-- registered model and its versions have beside their numbers. What only a job's run has stands in `job_runs`.

CREATE TABLE experiments (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    -- Null while it is not deleted.
    deleted_at BIGINT
);
CREATE TABLE experiment_tags (
    experiment BIGINT NOT NULL REFERENCES experiments (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (experiment, name)
);
-- Where a client logs that names none.
INSERT INTO experiments (id, name, created_at, changed_at) VALUES (0, 'Default', 0, 0);
-- One for each job of a project, be it one of a matrix or not.
INSERT INTO experiments (id, name, created_at, changed_at)
SELECT ROW_NUMBER() OVER (ORDER BY named.at, named.name), named.name, named.at, named.at
FROM (
    SELECT projects.name || '/' || jobs.definition AS name, MIN(runs.started_at) AS at
    FROM runs JOIN jobs ON jobs.id = runs.job JOIN projects ON projects.id = runs.project
    GROUP BY projects.name, jobs.definition
) named;

ALTER TABLE runs RENAME TO old_runs;
CREATE TABLE runs (
    -- 32 hex digits.
    id TEXT NOT NULL PRIMARY KEY,
    experiment BIGINT NOT NULL REFERENCES experiments (id),
    name TEXT NOT NULL,
    -- Whose it is, as the client said.
    person TEXT NOT NULL,
    -- MLflow's word: RUNNING, SCHEDULED, FINISHED, FAILED or KILLED.
    status TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    deleted_at BIGINT
);
INSERT INTO runs (id, experiment, name, person, status, started_at, finished_at)
SELECT old_runs.id, experiments.id, old_runs.name, '', old_runs.status, old_runs.started_at, old_runs.finished_at
FROM old_runs JOIN jobs ON jobs.id = old_runs.job JOIN projects ON projects.id = old_runs.project
    JOIN experiments ON experiments.name = projects.name || '/' || jobs.definition;
-- Runs of attempts that had a last word.
CREATE TABLE job_runs (
    run TEXT NOT NULL PRIMARY KEY REFERENCES runs (id),
    attempt TEXT NOT NULL UNIQUE REFERENCES attempts (id),
    job TEXT NOT NULL REFERENCES jobs (id),
    project TEXT NOT NULL REFERENCES projects (id),
    -- JSON.
    lineage TEXT NOT NULL,
    goals TEXT NOT NULL,
    -- Why it left no version although its job names a model.
    problem TEXT
);
INSERT INTO job_runs (run, attempt, job, project, lineage, goals, problem)
SELECT id, attempt, job, project, lineage, goals, problem FROM old_runs;

ALTER TABLE run_metrics RENAME TO old_run_metrics;
-- The last value of each metric of a run; `id` is what its curve goes by.
CREATE TABLE run_metrics (
    id BIGINT NOT NULL PRIMARY KEY,
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    -- What it sorts as. Where the word is not empty the value is that: NaN (0 here), Infinity, -Infinity (the largest
    -- and the smallest float).
    value DOUBLE PRECISION NOT NULL,
    word TEXT NOT NULL,
    step BIGINT NOT NULL,
    at BIGINT NOT NULL,
    UNIQUE (run, name)
);
INSERT INTO run_metrics (id, run, name, value, word, step, at)
SELECT ROW_NUMBER() OVER (ORDER BY m.run, m.name), m.run, m.name,
    CASE m.word WHEN 'Infinity' THEN 1.7976931348623157e308 WHEN '-Infinity' THEN -1.7976931348623157e308 ELSE m.value END,
    COALESCE(m.word, ''), m.step, old_runs.finished_at
FROM old_run_metrics m JOIN old_runs ON old_runs.id = m.run;
CREATE TABLE metric_points (
    metric BIGINT NOT NULL REFERENCES run_metrics (id),
    at BIGINT NOT NULL,
    step BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    word TEXT NOT NULL,
    -- The same point twice is one.
    PRIMARY KEY (metric, at, step, value, word)
);
INSERT INTO metric_points (metric, at, step, value, word) SELECT id, at, step, value, word FROM run_metrics;

ALTER TABLE run_params RENAME TO old_run_params;
CREATE TABLE run_params (
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, name)
);
INSERT INTO run_params (run, name, value) SELECT run, name, value FROM old_run_params;
ALTER TABLE run_tags RENAME TO old_run_tags;
CREATE TABLE run_tags (
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, name)
);
INSERT INTO run_tags (run, name, value) SELECT run, name, value FROM old_run_tags;

CREATE TABLE datasets (
    id BIGINT NOT NULL PRIMARY KEY,
    experiment BIGINT NOT NULL REFERENCES experiments (id),
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    source_type TEXT NOT NULL,
    source TEXT NOT NULL,
    schema_text TEXT,
    profile TEXT,
    UNIQUE (experiment, name, digest)
);
CREATE TABLE run_datasets (
    run TEXT NOT NULL REFERENCES runs (id),
    dataset BIGINT NOT NULL REFERENCES datasets (id),
    PRIMARY KEY (run, dataset)
);
CREATE TABLE run_dataset_tags (
    run TEXT NOT NULL,
    dataset BIGINT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, dataset, name),
    FOREIGN KEY (run, dataset) REFERENCES run_datasets (run, dataset)
);

CREATE TABLE logged_models (
    -- 'm-' and 32 hex digits.
    id TEXT NOT NULL PRIMARY KEY,
    experiment BIGINT NOT NULL REFERENCES experiments (id),
    name TEXT NOT NULL,
    kind TEXT,
    run TEXT REFERENCES runs (id),
    -- pending, ready or failed.
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE TABLE logged_model_params (
    model TEXT NOT NULL REFERENCES logged_models (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, name)
);
CREATE TABLE logged_model_tags (
    model TEXT NOT NULL REFERENCES logged_models (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, name)
);
CREATE TABLE logged_model_metrics (
    model TEXT NOT NULL REFERENCES logged_models (id),
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    at BIGINT NOT NULL,
    step BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    word TEXT NOT NULL,
    -- Empty where it was measured on none that is named.
    dataset TEXT NOT NULL,
    dataset_digest TEXT NOT NULL,
    PRIMARY KEY (model, name, at, step, run, dataset, dataset_digest)
);
-- Logged models that a run read or made.
CREATE TABLE run_models (
    run TEXT NOT NULL REFERENCES runs (id),
    model TEXT NOT NULL REFERENCES logged_models (id),
    -- input or output.
    role TEXT NOT NULL,
    step BIGINT NOT NULL,
    PRIMARY KEY (run, role, model, step)
);

-- Files of runs and of logged models.
CREATE TABLE kept_files (
    -- The id of a run or of a logged model.
    owner TEXT NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    size BIGINT NOT NULL,
    PRIMARY KEY (owner, path)
);
-- What attempts left; their models lie under model/.
INSERT INTO kept_files (owner, path, digest, size)
SELECT job_runs.run, 'model/' || artifacts.path, artifacts.digest, artifacts.size
FROM job_runs JOIN artifacts ON artifacts.attempt = job_runs.attempt WHERE artifacts.role = 'model';
INSERT INTO kept_files (owner, path, digest, size)
SELECT job_runs.run, artifacts.path, artifacts.digest, artifacts.size
FROM job_runs JOIN artifacts ON artifacts.attempt = job_runs.attempt
WHERE artifacts.role IN ('notebook', 'declared')
ON CONFLICT (owner, path) DO NOTHING;

ALTER TABLE baselines RENAME TO old_baselines;
-- The run that stood for a job on the default branch, be it the job's own or an equal one's.
CREATE TABLE baselines (
    job TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id),
    project TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    run TEXT NOT NULL REFERENCES runs (id)
);
INSERT INTO baselines (job, project, name, run) SELECT job, project, name, run FROM old_baselines;

ALTER TABLE models RENAME TO old_models;
CREATE TABLE models (
    name TEXT NOT NULL PRIMARY KEY,
    -- Null for one that a client registered.
    project TEXT REFERENCES projects (id),
    description TEXT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);
INSERT INTO models (name, project, created_at, changed_at) SELECT name, project, created_at, created_at FROM old_models;
CREATE TABLE model_tags (
    model TEXT NOT NULL REFERENCES models (name) ON UPDATE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, name)
);
ALTER TABLE model_versions RENAME TO old_model_versions;
CREATE TABLE model_versions (
    id TEXT NOT NULL PRIMARY KEY,
    model TEXT NOT NULL REFERENCES models (name) ON UPDATE CASCADE,
    -- Null for a candidate.
    version BIGINT,
    run TEXT REFERENCES runs (id),
    -- As the client gave it, and where its files lie; both null for what a job left: they are its run's.
    source TEXT,
    location TEXT,
    run_link TEXT,
    description TEXT,
    -- None, Staging, Production or Archived.
    stage TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    -- A deleted version keeps its number.
    deleted_at BIGINT,
    promoted_by TEXT,
    promoted_why TEXT,
    promoted_at BIGINT,
    UNIQUE (model, version)
);
INSERT INTO model_versions (id, model, version, run, stage, created_at, changed_at, promoted_by, promoted_why, promoted_at)
SELECT id, model, version, run, 'None', created_at, COALESCE(promoted_at, created_at), promoted_by, promoted_why, promoted_at
FROM old_model_versions;
CREATE TABLE model_version_tags (
    version TEXT NOT NULL REFERENCES model_versions (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (version, name)
);
ALTER TABLE model_files RENAME TO old_model_files;
CREATE TABLE model_files (
    version TEXT NOT NULL REFERENCES model_versions (id),
    path TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    size BIGINT NOT NULL,
    PRIMARY KEY (version, path)
);
INSERT INTO model_files (version, path, digest, size) SELECT version, path, digest, size FROM old_model_files;
ALTER TABLE aliases RENAME TO old_aliases;
CREATE TABLE aliases (
    model TEXT NOT NULL REFERENCES models (name) ON UPDATE CASCADE,
    alias TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON UPDATE CASCADE
);
INSERT INTO aliases (model, alias, version) SELECT model, alias, version FROM old_aliases;
ALTER TABLE alias_changes RENAME TO old_alias_changes;
CREATE TABLE alias_changes (
    model TEXT NOT NULL REFERENCES models (name) ON UPDATE CASCADE,
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
INSERT INTO alias_changes (model, number, alias, version, previous, who, why, at)
SELECT model, number, alias, version, previous, who, why, at FROM old_alias_changes;

DROP TABLE old_alias_changes;
DROP TABLE old_aliases;
DROP TABLE old_model_files;
DROP TABLE old_model_versions;
DROP TABLE old_models;
DROP TABLE old_baselines;
DROP TABLE old_run_tags;
DROP TABLE old_run_params;
DROP TABLE old_run_metrics;
DROP TABLE old_runs;

CREATE INDEX runs_of_experiment ON runs (experiment, started_at);
CREATE INDEX job_runs_of_job ON job_runs (job);
CREATE INDEX run_metrics_by_name ON run_metrics (name, value, word, run);
CREATE INDEX run_params_by_name ON run_params (name, run);
CREATE INDEX run_tags_by_name ON run_tags (name, run);
CREATE INDEX run_datasets_of_dataset ON run_datasets (dataset);
CREATE INDEX logged_models_of_experiment ON logged_models (experiment, created_at);
CREATE INDEX kept_files_of_blob ON kept_files (digest);
CREATE INDEX model_files_of_blob ON model_files (digest);
CREATE INDEX model_versions_of_run ON model_versions (run);
CREATE INDEX baselines_by_name ON baselines (project, name, job);
