-- From when to when does history have every version?
-- In these stretches every committed version was seen, in the log of ToteSys, and is dated by its commit. Outside of them
-- rows were compared: of one that changed more than once between two refreshes, the last state was seen. A stretch
-- without an end goes on, up to the last load of that table: what began or ended since is noted with its next one. No
-- row at all: the log was never followed.
SELECT table_name, followed_from, followed_until, reason
FROM _followed
ORDER BY table_name, followed_from
