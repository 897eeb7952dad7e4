-- Run this with psql, as a superuser, in the database for encvec. It creates the extension, a role without privileges,
-- and a schema that the role owns. You can run it again: it sets the password and updates the extension.
--
--   ENCVEC_PASSWORD_FILE=... psql -v ON_ERROR_STOP=1 -f init.sql

\set ON_ERROR_STOP on
\getenv password_file ENCVEC_PASSWORD_FILE
\if :{?password_file}
\else
  DO $$ BEGIN RAISE EXCEPTION 'ENCVEC_PASSWORD_FILE names no file'; END $$;
\endif
\set password `cat "$ENCVEC_PASSWORD_FILE"`
SELECT :'password' = '' AS missing \gset
\if :missing
  DO $$ BEGIN RAISE EXCEPTION 'the file that ENCVEC_PASSWORD_FILE names has no password in it'; END $$;
\endif

-- Keep the statement that sets the password out of the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';
SET password_encryption = 'scram-sha-256';

CREATE EXTENSION IF NOT EXISTS vector;
ALTER EXTENSION vector UPDATE;
DO $$
DECLARE found text := (SELECT extversion FROM pg_extension WHERE extname = 'vector');
BEGIN
  IF string_to_array(found, '.')::int[] < ARRAY[0, 8, 4] THEN
    RAISE EXCEPTION 'pgvector % is too old: vacuum may damage its indexes before 0.8.4', found;
  END IF;
END $$;

SELECT 'CREATE ROLE encvec' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'encvec') \gexec
ALTER ROLE encvec LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO encvec;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO encvec; -- it has the type vector
CREATE SCHEMA IF NOT EXISTS encvec AUTHORIZATION encvec;

-- Check the result.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_authid WHERE rolname = 'encvec' AND rolpassword LIKE 'SCRAM-SHA-256$%') THEN
    RAISE EXCEPTION 'the password of encvec is not kept as SCRAM-SHA-256';
  END IF;
  IF (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'encvec') <> 'encvec' THEN
    RAISE EXCEPTION 'the schema encvec belongs to another role';
  END IF;
END $$;
