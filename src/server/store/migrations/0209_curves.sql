-- What costs the most rows lies packed, and what is searched most is found by its value.

-- Curves: 64 points to a row; a metric that has one point has none: its own row is that point. The program moves the rows of
-- metric_points, and removes that table.
CREATE TABLE metric_chunks (
    metric BIGINT NOT NULL REFERENCES run_metrics (id),
    -- The first point.
    begins BYTEA NOT NULL,
    -- Time, step and value of each, 24 bytes whose order is theirs (store/curves.rs).
    points BYTEA NOT NULL,
    PRIMARY KEY (metric, begins)
);
-- The last value as the bits of a float: the program writes them where rows are there.
ALTER TABLE run_metrics ADD COLUMN bits BIGINT NOT NULL DEFAULT 0;

-- Searches begin with a param or a tag that is said, and look the rest up by run. Long texts would not fit Postgres's index.
DROP INDEX run_metrics_by_name;
DROP INDEX run_params_by_name;
DROP INDEX run_tags_by_name;
CREATE INDEX run_params_by_value ON run_params (name, value, run) WHERE length(value) <= 200;
CREATE INDEX run_tags_by_value ON run_tags (name, value, run) WHERE length(value) <= 200;
