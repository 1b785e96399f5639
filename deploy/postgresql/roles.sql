-- Roles with no more rights than their work needs:
--
--     aperta             the API and the workers: they read and write rows; they make, change and drop nothing
--     aperta_autoscaler  KEDA: one function, which returns how many seconds of audio wait
--
-- Run it once, after `aperta migrate`, as the role that migrates, which owns the tables and may create roles:
--
--     psql "$DATABASE_URL" -f deploy/postgresql/roles.sql
--     psql "$DATABASE_URL" -c '\password aperta' -c '\password aperta_autoscaler'
--
-- It may be run again. Tables of later migrations by the same role are covered.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['aperta', 'aperta_autoscaler'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;

GRANT USAGE ON SCHEMA public, dbos TO aperta;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, dbos TO aperta;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public, dbos TO aperta;
ALTER DEFAULT PRIVILEGES IN SCHEMA public, dbos GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO aperta;
ALTER DEFAULT PRIVILEGES IN SCHEMA public, dbos GRANT USAGE, SELECT ON SEQUENCES TO aperta;

-- A function whose body is text, rather than a view: migrations may change the table without dropping it first.
CREATE OR REPLACE FUNCTION public.waiting_audio_s() RETURNS double precision
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(SUM(GREATEST(COALESCE(expected_s, 0), 60)), 0)
    FROM public.jobs WHERE status IN ('queued', 'running')
$$;
REVOKE ALL ON FUNCTION public.waiting_audio_s() FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO aperta_autoscaler;
GRANT EXECUTE ON FUNCTION public.waiting_audio_s() TO aperta_autoscaler;
ALTER ROLE aperta_autoscaler SET default_transaction_read_only = on;
ALTER ROLE aperta_autoscaler CONNECTION LIMIT 5;
