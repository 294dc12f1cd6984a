-- Why a version is one, what its files are, who removed it, and which versions a training went on from.

-- Why it became a version or a candidate, in words; null: it was made before this was kept, or a client registered it.
ALTER TABLE model_versions ADD COLUMN because TEXT;
-- What its files show it to be, a JSON list of words; null: nobody has looked yet.
ALTER TABLE model_versions ADD COLUMN flavours TEXT;
-- Who removed it, and why; it is gone since `deleted_at`. Null for one that a client deleted.
ALTER TABLE model_versions ADD COLUMN removed_by TEXT;
ALTER TABLE model_versions ADD COLUMN removed_why TEXT;
-- Since when the links to its files are gone too.
ALTER TABLE model_versions ADD COLUMN emptied_at BIGINT;
CREATE INDEX model_versions_unseen ON model_versions (id) WHERE flavours IS NULL;
CREATE INDEX model_versions_deleted ON model_versions (deleted_at) WHERE emptied_at IS NULL;

-- The metric by which candidates are ranked: the first of the pipeline file.
ALTER TABLE job_runs ADD COLUMN first_metric TEXT;

-- The version that a job goes on from.
CREATE TABLE job_parents (
    job TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id),
    version TEXT NOT NULL REFERENCES model_versions (id),
    -- As the pipeline file names it, such as digits@champion.
    asked TEXT NOT NULL
);
CREATE INDEX job_parents_of_version ON job_parents (version);
