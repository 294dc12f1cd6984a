-- The comment that a delivery tells of, by the forge's number of it: a message and a list tell of the same one. Null: of none.
ALTER TABLE deliveries ADD COLUMN comment_id BIGINT;
-- What came before has it in its body, which begins {"event":"comment","number":7,"id":123,"by":
UPDATE deliveries SET comment_id =
    (SELECT CAST(substr(rest, 1, length(rest) - length(ltrim(rest, '0123456789'))) AS BIGINT) FROM
        (SELECT ltrim(ltrim(ltrim(body, '{":,abcdefghijklmnopqrstuvwxyz'), '0123456789'), ',":id') AS rest) AS cut)
    WHERE asks = 1 AND body LIKE '{"event":"comment","number":%';
CREATE INDEX deliveries_of_comments ON deliveries (project, comment_id) WHERE comment_id IS NOT NULL;

-- Until when what a person asked for is not tried again.
ALTER TABLE deliveries ADD COLUMN next_try BIGINT NOT NULL DEFAULT 0;

-- Up to when it is known what was said under a pull request, whether or not a message told of it. Null: nobody asked.
ALTER TABLE pull_requests ADD COLUMN comments_listed_at BIGINT;
