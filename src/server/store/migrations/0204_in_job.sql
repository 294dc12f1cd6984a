-- What the code of an attempt writes to the registry while it runs.

-- The attempt whose code began the run; null for one of a client outside of jobs.
ALTER TABLE runs ADD COLUMN attempt TEXT REFERENCES attempts (id);
UPDATE runs SET attempt = (SELECT job_runs.attempt FROM job_runs WHERE job_runs.run = runs.id);
CREATE INDEX runs_of_attempt ON runs (attempt);
CREATE INDEX runs_going_on ON runs (attempt) WHERE status = 'RUNNING' AND attempt IS NOT NULL;
-- The last call of each attempt that was carried out, and its answer: the same call again does nothing more.
CREATE TABLE job_calls (
    attempt TEXT NOT NULL PRIMARY KEY REFERENCES attempts (id),
    number BIGINT NOT NULL,
    -- JSON.
    answer TEXT NOT NULL
);
