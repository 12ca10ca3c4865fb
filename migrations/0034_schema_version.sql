-- Returns the numbers of the applied migrations, and the number of the newest migration that
-- the oldest compatible program knows.
--
-- Decides: which programs can work with this schema. A program needs all migrations that it
--     knows. It can also work with a newer schema, as long as it knows the migration
--     `oldest_known`. A migration that removes something which older programs use replaces
--     this function, with its own number or that of an earlier migration.
-- Called by: src/pg/server_check.rs.
-- In SQL because: security definer, the table of the migrations belongs to the schema's owner.
create function schema_version(out applied bigint[], out oldest_known bigint)
    language plpgsql stable security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    select array_agg(version order by version), 27 into applied, oldest_known
    from _sqlx_migrations where success;
end $$;

-- `tenantry migrate` creates this table before the first migration. Other programs that apply
-- these files do not have it.
do $$
begin
    if to_regclass('public._sqlx_migrations') is not null then
        grant select on _sqlx_migrations to tenantry_lookup;
    end if;
end $$;

revoke execute on function schema_version() from public;
grant execute on function schema_version() to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function schema_version() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
