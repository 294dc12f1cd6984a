-- Until when forges asked to be left alone, by whom they count: an API with a token, or with an App where it is installed.
-- All projects that speak alike rest together.

CREATE TABLE forge_rests (
    whom TEXT NOT NULL PRIMARY KEY,
    rests_until BIGINT NOT NULL
);
ALTER TABLE projects DROP COLUMN forge_rests_until;
