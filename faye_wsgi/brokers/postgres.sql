-- The data of channels in Postgres 12 or later, and what is done with them.
--
-- It is written for the prefix faye, which is the name of the schema; for another prefix all names
-- that begin with "faye." change, and the literal. It may be run again and again. A function that
-- is changed gets another number (v1_), since processes of two releases may share the data.
--
-- log     one row for each publication, in the order of numbers; also for the birth of a channel
--         that was read before it was published to, and for an announcement of presence. Rows are
--         never updated, but for "forgotten": a row that each publication updates would have
--         thousands of dead versions while some long transaction runs elsewhere.
-- life    the epochs, by the number at which each began; alive: see v1_epoch
-- worker, here, roster, leaving   presence. After a crash they are empty, and processes note all again.
--
-- What numbers anything holds one lock until its commit can be seen (v1_enter). So the order of
-- numbers is the order in which rows become visible: a reader that sees a number sees all below.
-- Functions are in plpgsql for this, too: each statement in them sees what was committed when it
-- began, and not only what was when the lock was waited for. Times are in µs, as numbers are.

SELECT pg_advisory_xact_lock(hashtext('faye'));

DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'faye') THEN
    CREATE SCHEMA faye;
  END IF;
END $do$;

CREATE TABLE IF NOT EXISTS faye.log (
  number bigint PRIMARY KEY,
  channel bytea NOT NULL,
  previous bigint,    -- of a publication and a birth; NULL for an announcement
  payload bytea,      -- NULL for a birth and a leave
  member bytea,       -- who joins (with the payload) or leaves
  key bytea,
  ordinal bigint,     -- counts the channel's publications
  first bigint,       -- with this row as the newest, the lowest ordinal that is kept
  swept bigint,       -- the channel's rows up to this number are deleted, but for some with keys
  stays bigint NOT NULL,  -- until when feeds, or repetitions with the key, need the row
  expires bigint,     -- with this row as the newest, until when the history is kept
  forgotten bigint    -- with this row as the newest, until when the channel's last number is kept
) WITH (
  autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.1,
  autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX IF NOT EXISTS log_channel ON faye.log (channel, number) WHERE previous IS NOT NULL;
CREATE INDEX IF NOT EXISTS log_key ON faye.log (channel, key) WHERE key IS NOT NULL;

CREATE TABLE IF NOT EXISTS faye.life (
  number bigint PRIMARY KEY,
  epoch text NOT NULL,
  place text NOT NULL,
  system bigint NOT NULL,
  start timestamptz NOT NULL
);
CREATE UNLOGGED TABLE IF NOT EXISTS faye.alive (life bigint NOT NULL);

CREATE UNLOGGED TABLE IF NOT EXISTS faye.worker (id text PRIMARY KEY, seen bigint NOT NULL);
CREATE UNLOGGED TABLE IF NOT EXISTS faye.here (
  channel bytea, member bytea, worker text, connection bytea, data bytea NOT NULL,
  PRIMARY KEY (channel, member, worker, connection)
);
CREATE INDEX IF NOT EXISTS here_worker ON faye.here (worker);
-- The members as they were announced, until their leave is announced.
CREATE UNLOGGED TABLE IF NOT EXISTS faye.roster (
  channel bytea, member bytea, data bytea NOT NULL,
  PRIMARY KEY (channel, member)
);
CREATE UNLOGGED TABLE IF NOT EXISTS faye.leaving (
  channel bytea, member bytea, due bigint NOT NULL,
  PRIMARY KEY (channel, member)
);
CREATE INDEX IF NOT EXISTS leaving_due ON faye.leaving (due);


CREATE OR REPLACE FUNCTION faye.v1_time() RETURNS bigint LANGUAGE plpgsql AS $body$
BEGIN
  RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $body$;

-- Where the data are: which database, which table (another one after a restore from a dump), and
-- which timeline of its server (another one after a promotion, or a recovery to a point in time).
CREATE OR REPLACE FUNCTION faye.v1_place() RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
  RETURN format('%s:%s:%s',
    (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
    'faye.log'::regclass::oid,
    left(pg_walfile_name(pg_current_wal_lsn()), 8));
END $body$;

-- The epoch, or NULL where another one must begin: the data are at another place, the server was
-- started again, or it has crashed, which empties unlogged tables. With "durable" a start and a
-- crash lose nothing; then the cluster must be the same one.
CREATE OR REPLACE FUNCTION faye.v1_epoch(durable boolean) RETURNS text
LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE read_only_sql_transaction USING MESSAGE = 'it is in recovery';
  END IF;
  RETURN (
    SELECT i.epoch FROM faye.life i
    WHERE i.number = (SELECT max(j.number) FROM faye.life j)
      AND i.place = faye.v1_place()
      AND CASE WHEN durable
        THEN i.system = (SELECT c.system_identifier FROM pg_control_system() c)
        ELSE i.start = pg_postmaster_start_time()
          AND EXISTS (SELECT FROM faye.alive a WHERE a.life = i.number)
        END);
END $body$;

CREATE OR REPLACE FUNCTION faye.v1_next_number() RETURNS bigint LANGUAGE plpgsql AS $body$
BEGIN
  RETURN greatest(
    faye.v1_time(),
    (SELECT max(l.number) FROM faye.log l) + 1,
    (SELECT max(i.number) FROM faye.life i) + 1);
END $body$;

-- Wait for the lock, "patience" ms at most, and return the epoch: "fresh", where one must begin.
CREATE OR REPLACE FUNCTION faye.v1_enter(durable boolean, patience bigint, fresh text) RETURNS text
LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  epoch text;
  number bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE 'channels need default_transaction_isolation = ''read committed'''
      USING HINT = format('ALTER ROLE %I SET default_transaction_isolation = ''read committed''',
        current_user);
  END IF;
  IF NOT durable THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  ELSIF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  PERFORM set_config('lock_timeout', patience::text, true);
  PERFORM pg_advisory_xact_lock((1717664101::bigint << 32) | 'faye.log'::regclass::oid::bigint);
  epoch := faye.v1_epoch(durable);
  IF epoch IS NULL THEN
    epoch := fresh;
    number := faye.v1_next_number();
    INSERT INTO faye.life VALUES (number, epoch, faye.v1_place(),
      (SELECT c.system_identifier FROM pg_control_system() c), pg_postmaster_start_time());
    DELETE FROM faye.alive;
    INSERT INTO faye.alive VALUES (number);
  END IF;
  RETURN epoch;
END $body$;

CREATE OR REPLACE FUNCTION faye.v1_notify(channel bytea) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  -- 8,000 bytes is the most; an empty text wakes all.
  PERFORM pg_notify('faye', CASE WHEN length(channel) <= 2000 THEN encode(channel, 'hex') ELSE '' END);
END $body$;

-- Number, keep and send a publication.
CREATE OR REPLACE FUNCTION faye.v1_publish(
  durable boolean, patience bigint, fresh text, channel bytea, payload bytea, key bytea,
  history bigint, ttl bigint, transit bigint, key_time bigint, last_time bigint,
  OUT number bigint, OUT epoch text
) LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  clock bigint;
  last record;
  old record;
  previous bigint;
  ordinal bigint := 1;
  first bigint := 1;
  swept bigint := 0;
BEGIN
  epoch := faye.v1_enter(durable, patience, fresh);
  clock := faye.v1_time();
  IF key IS NOT NULL THEN
    SELECT l.number INTO number FROM faye.log l
      WHERE l.channel = channel AND l.key = key AND l.stays > clock
      ORDER BY l.number DESC LIMIT 1;
    IF FOUND THEN
      epoch := coalesce((
        SELECT i.epoch FROM faye.life i
        WHERE i.number <= number ORDER BY i.number DESC LIMIT 1
      ), '0');  -- of an epoch that is not known any more: it vouches for nothing
      RETURN;
    END IF;
  END IF;
  number := faye.v1_next_number();
  SELECT l.number, l.ordinal, l.first, l.swept, l.expires INTO last FROM faye.log l
    WHERE l.channel = channel AND l.previous IS NOT NULL
    ORDER BY l.number DESC LIMIT 1;
  IF FOUND THEN
    previous := last.number;
    ordinal := last.ordinal + 1;
    first := CASE WHEN last.expires > clock THEN last.first ELSE ordinal END;
    swept := last.swept;
  ELSE
    previous := number;  -- its birth: above all positions that were given before
    number := number + 1;
  END IF;
  first := greatest(first, ordinal - history + 1);
  -- Each publication deletes up to two that it, or one before it, has pushed out; those with keys
  -- are left to v1_sweep. The search begins behind the last of them: dead entries of the index cost
  -- nothing.
  FOR old IN
    SELECT l.number, l.ordinal, l.stays, l.key FROM faye.log l
    WHERE l.channel = channel AND l.previous IS NOT NULL
      AND l.number > swept AND l.number < number
    ORDER BY l.number LIMIT 2
  LOOP
    EXIT WHEN old.ordinal >= first OR (old.stays >= clock AND old.key IS NULL);
    DELETE FROM faye.log l WHERE l.number = old.number AND l.stays < clock;
    swept := old.number;
  END LOOP;
  INSERT INTO faye.log VALUES (
    number, channel, previous, payload, NULL, key, ordinal, first, swept,
    clock + CASE WHEN key IS NULL THEN transit ELSE key_time END,
    clock + ttl, clock + greatest(ttl, last_time));
  PERFORM faye.v1_notify(channel);
END $body$;

-- Read what is kept of channels; one that is not known is born. "sinces" has NULL for the newest,
-- "limits" and "sizes" NULL for all. The row of the request 0 has the clock's number and the epoch; each other
-- request has at least one row.
CREATE OR REPLACE FUNCTION faye.v1_read(
  durable boolean, patience bigint, fresh text, channels bytea[], sinces bigint[], limits bigint[],
  sizes bigint[], transit bigint, last_time bigint
) RETURNS TABLE (request int, last bigint, number bigint, previous bigint, payload bytea)
LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  clock bigint := faye.v1_time();
  epoch text := faye.v1_epoch(durable);
  known int;
  fading bigint[];  -- the newest rows of channels that would be forgotten within half the time
  kept int := 0;
BEGIN
  SELECT count(l.number),
      array_agg(DISTINCT l.number) FILTER (WHERE l.forgotten < clock + last_time / 2)
    INTO known, fading
    FROM unnest(channels) AS c(name) LEFT JOIN LATERAL (
      SELECT l.number, l.forgotten FROM faye.log l
      WHERE l.channel = c.name AND l.previous IS NOT NULL
      ORDER BY l.number DESC LIMIT 1
    ) AS l ON true;
  IF epoch IS NULL OR known < cardinality(channels) THEN
    epoch := faye.v1_enter(durable, patience, fresh);
    INSERT INTO faye.log
      SELECT faye.v1_next_number() + row_number() OVER (), c.name, 0, NULL, NULL, NULL,
        0, 1, 0, clock + transit, 0, clock + last_time
      FROM (SELECT DISTINCT u.name FROM unnest(channels) AS u(name)) AS c
      WHERE NOT EXISTS (
        SELECT FROM faye.log l WHERE l.channel = c.name AND l.previous IS NOT NULL);
  END IF;
  IF fading IS NOT NULL THEN  -- after the lock was waited for, if it was
    UPDATE faye.log l SET forgotten = clock + last_time WHERE l.number = ANY (fading);
    GET DIAGNOSTICS kept = ROW_COUNT;
    IF kept < cardinality(fading) THEN
      RAISE serialization_failure USING MESSAGE = 'channels were forgotten while they were read';
    END IF;
  END IF;
  RETURN QUERY  -- one statement: one moment
    SELECT 0, NULL::bigint,
      greatest((SELECT max(l.number) FROM faye.log l), i.number),
      NULL::bigint, convert_to(i.epoch, 'UTF8')
    FROM faye.life i WHERE i.number = (SELECT max(j.number) FROM faye.life j)
    UNION ALL
    SELECT r.place::int, newest.number, kept.number, kept.previous, kept.payload
    FROM unnest(channels, sinces, limits, sizes) WITH ORDINALITY
      AS r(name, since, most, size, place)
    CROSS JOIN LATERAL (
      SELECT l.number, l.first, l.expires FROM faye.log l
      WHERE l.channel = r.name AND l.previous IS NOT NULL
      ORDER BY l.number DESC LIMIT 1
    ) AS newest
    LEFT JOIN LATERAL (
      SELECT f.number, f.previous, f.payload FROM (
        (SELECT l.number, l.previous, l.payload,
            sum(length(l.payload)) OVER (ORDER BY l.number) AS upto
          FROM faye.log l
          WHERE l.channel = r.name AND l.previous IS NOT NULL AND l.number > r.since
            AND l.ordinal >= newest.first AND newest.expires > clock
          ORDER BY l.number LIMIT r.most)
        UNION ALL
        (SELECT l.number, l.previous, l.payload,
            sum(length(l.payload)) OVER (ORDER BY l.number DESC)
          FROM faye.log l
          WHERE l.channel = r.name AND l.previous IS NOT NULL AND r.since IS NULL
            AND l.ordinal >= newest.first AND newest.expires > clock
          ORDER BY l.number DESC LIMIT coalesce(r.most, 0))
      ) AS f
      -- Up to the one that reaches the size.
      WHERE r.size IS NULL OR f.upto - length(f.payload) < r.size
    ) AS kept ON true
    ORDER BY 1, 3;
END $body$;

-- What came after a position to some channels, or to all (NULL), for a feed. The last row, which
-- has no channel, has the clock's number and the epoch.
CREATE OR REPLACE FUNCTION faye.v1_fetch(since bigint, channels bytea[], most bigint)
RETURNS TABLE (number bigint, previous bigint, channel bytea, member bytea, payload bytea)
LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
BEGIN
  RETURN QUERY
    SELECT greatest((SELECT max(l.number) FROM faye.log l), i.number),
      NULL::bigint, NULL::bytea, NULL::bytea, convert_to(i.epoch, 'UTF8')
    FROM faye.life i WHERE i.number = (SELECT max(j.number) FROM faye.life j)
    UNION ALL (
      SELECT l.number, l.previous, l.channel, l.member, l.payload FROM faye.log l
      WHERE l.number > since AND (channels IS NULL OR l.channel = ANY (channels))
        AND (l.payload IS NOT NULL OR l.member IS NOT NULL)
      ORDER BY l.number LIMIT most
    )
    ORDER BY 1, 3 NULLS LAST;
END $body$;

-- Look at up to "most" rows behind a number, and delete those that nothing needs. Returns where to
-- go on, 0 at the end. No lock: a row that is not needed now will not be needed again.
CREATE OR REPLACE FUNCTION faye.v1_sweep(since bigint, most bigint) RETURNS bigint
LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  clock bigint := faye.v1_time();
  row record;
  last record;
  seen int := 0;
BEGIN
  FOR row IN
    SELECT l.number, l.channel, l.previous, l.ordinal, l.stays FROM faye.log l
    WHERE l.number > since AND l.number < (SELECT max(m.number) FROM faye.log m)
    ORDER BY l.number LIMIT most
  LOOP
    since := row.number;
    seen := seen + 1;
    CONTINUE WHEN row.stays >= clock;
    IF row.previous IS NULL THEN
      DELETE FROM faye.log l WHERE l.number = row.number;
      CONTINUE;
    END IF;
    SELECT l.number, l.first, l.expires INTO last FROM faye.log l
      WHERE l.channel = row.channel AND l.previous IS NOT NULL
      ORDER BY l.number DESC LIMIT 1;
    CONTINUE WHEN row.number < last.number
      AND row.ordinal >= last.first AND last.expires >= clock;
    DELETE FROM faye.log l
      WHERE l.number = row.number AND (l.number < last.number OR l.forgotten < clock);
  END LOOP;
  RETURN CASE WHEN seen < most THEN 0 ELSE since END;
END $body$;


-- Presence. memory.py says in Python what is announced when.

CREATE OR REPLACE FUNCTION faye.v1_announce(
  channel bytea, member bytea, data bytea, transit bigint
) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  INSERT INTO faye.log (number, channel, member, payload, stays)
    VALUES (faye.v1_next_number(), channel, member, data, faye.v1_time() + transit);
  PERFORM faye.v1_notify(channel);
END $body$;

-- Note that a process lives. Whether it was known before: else its connections are forgotten.
CREATE OR REPLACE FUNCTION faye.v1_live(worker text, worker_time bigint) RETURNS boolean
LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  clock bigint := faye.v1_time();
  known boolean;
BEGIN
  SELECT w.seen > clock - worker_time INTO known FROM faye.worker w WHERE w.id = worker;
  INSERT INTO faye.worker VALUES (worker, clock)
    ON CONFLICT ON CONSTRAINT worker_pkey DO UPDATE SET seen = clock;
  RETURN coalesce(known, false);
END $body$;

-- A connection of a member is gone: if it was the last one, the member leaves later.
CREATE OR REPLACE FUNCTION faye.v1_go(
  channel bytea, member bytea, leave_time bigint
) RETURNS void LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
BEGIN
  IF NOT EXISTS (SELECT FROM faye.here h WHERE h.channel = channel AND h.member = member) THEN
    INSERT INTO faye.leaving VALUES (channel, member, faye.v1_time() + leave_time)
      ON CONFLICT ON CONSTRAINT leaving_pkey DO UPDATE SET due = excluded.due;
  END IF;
END $body$;

-- Note which connections have come (with data) and gone. Whether the process was known before.
CREATE OR REPLACE FUNCTION faye.v1_change(
  durable boolean, patience bigint, fresh text, transit bigint,
  worker text, worker_time bigint, leave_time bigint,
  channels bytea[], members bytea[], connections bytea[], data bytea[]
) RETURNS boolean LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  known boolean;
BEGIN
  PERFORM faye.v1_enter(durable, patience, fresh);
  known := faye.v1_live(worker, worker_time);
  FOR i IN 1 .. cardinality(channels) LOOP
    IF data[i] IS NULL THEN
      DELETE FROM faye.here h WHERE h.channel = channels[i] AND h.member = members[i]
        AND h.worker = worker AND h.connection = connections[i];
      IF FOUND THEN
        PERFORM faye.v1_go(channels[i], members[i], leave_time);
      END IF;
      CONTINUE;
    END IF;
    INSERT INTO faye.here VALUES (channels[i], members[i], worker, connections[i], data[i])
      ON CONFLICT ON CONSTRAINT here_pkey DO UPDATE SET data = excluded.data;
    DELETE FROM faye.leaving v WHERE v.channel = channels[i] AND v.member = members[i];
    INSERT INTO faye.roster AS r VALUES (channels[i], members[i], data[i])
      ON CONFLICT ON CONSTRAINT roster_pkey
      DO UPDATE SET data = excluded.data WHERE r.data <> excluded.data;
    IF FOUND THEN
      PERFORM faye.v1_announce(channels[i], members[i], data[i], transit);
    END IF;
  END LOOP;
  RETURN known;
END $body$;

-- Note that a process lives, announce the leaves that are due, forget dead processes: "most" of
-- each, and whether there is more to do at once.
CREATE OR REPLACE FUNCTION faye.v1_beat(
  durable boolean, patience bigint, fresh text, transit bigint,
  worker text, worker_time bigint, leave_time bigint, most bigint,
  OUT known boolean, OUT alive int, OUT more boolean
) LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  clock bigint := faye.v1_time();
  -- What has become due later is left to the next beat: only the lock lets rows be numbered.
  is_due boolean := EXISTS (SELECT FROM faye.leaving v WHERE v.due <= clock);
  is_dead boolean := EXISTS (SELECT FROM faye.worker w WHERE w.seen <= clock - worker_time);
  gone record;
  dead text;
  count int := 0;
BEGIN
  IF is_due OR is_dead THEN
    PERFORM faye.v1_enter(durable, patience, fresh);  -- before any row is locked
  END IF;
  known := faye.v1_live(worker, worker_time);
  IF is_due THEN
    FOR gone IN
      DELETE FROM faye.leaving v USING (
        SELECT u.channel, u.member FROM faye.leaving u
        WHERE u.due <= clock ORDER BY u.due LIMIT most
      ) AS due
      WHERE v.channel = due.channel AND v.member = due.member
      RETURNING v.channel, v.member
    LOOP
      count := count + 1;
      DELETE FROM faye.roster r WHERE r.channel = gone.channel AND r.member = gone.member;
      PERFORM faye.v1_announce(gone.channel, gone.member, NULL, transit);
    END LOOP;
  END IF;
  more := count >= most;
  IF is_dead THEN
    SELECT w.id INTO dead FROM faye.worker w WHERE w.seen <= clock - worker_time LIMIT 1;
    count := 0;
    FOR gone IN
      DELETE FROM faye.here h WHERE h.ctid = ANY (ARRAY(
        SELECT g.ctid FROM faye.here g WHERE g.worker = dead LIMIT most))
      RETURNING h.channel, h.member
    LOOP
      count := count + 1;
      PERFORM faye.v1_go(gone.channel, gone.member, leave_time);
    END LOOP;
    IF count < most THEN
      DELETE FROM faye.worker w WHERE w.id = dead;
    END IF;
    more := more OR dead IS NOT NULL;
  END IF;
  -- One that is alive calls this each second.
  SELECT count(*) INTO alive FROM faye.worker w WHERE w.seen > clock - 5000000;
END $body$;

-- The members of a channel, one row for each connection of a living process.
CREATE OR REPLACE FUNCTION faye.v1_members(channel bytea, worker_time bigint)
RETURNS TABLE (member bytea, data bytea) LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
DECLARE
  clock bigint := faye.v1_time();
BEGIN
  RETURN QUERY
    SELECT h.member, h.data FROM faye.here h
    WHERE h.channel = channel AND EXISTS (
      SELECT FROM faye.worker w WHERE w.id = h.worker AND w.seen > clock - worker_time);
END $body$;

-- The members of several channels, by the place of these, as they were announced.
CREATE OR REPLACE FUNCTION faye.v1_rosters(channels bytea[])
RETURNS TABLE (place int, member bytea, data bytea) LANGUAGE plpgsql AS $body$
#variable_conflict use_variable
BEGIN
  RETURN QUERY
    SELECT c.place::int, r.member, r.data
    FROM unnest(channels) WITH ORDINALITY AS c(name, place)
    JOIN faye.roster r ON r.channel = c.name;
END $body$;
