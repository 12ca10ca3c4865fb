-- Deletes rows that ended long ago. src/trim has the list of tables, and how long each is kept.
--
-- A trim reads a table block by block, because an index on the time of the end would cost every
-- write of the table more than the trim costs. A pass through the whole table takes many small
-- transactions.

grant select, delete on sessions, role_assignments, api_keys, spent_assertions, mail_links
    to tenantry_lookup;

-- Deletes the rows of p_blocks blocks of a table, from the block p_from on, that ended at least
-- p_keep ago. Returns their number, and the number of blocks of the table. Returns no row when
-- another replica is trimming.
--
-- Decides: when a row of each table has ended. The policies of 0041_trim_policies.sql let it see
--     no other rows. The policy role_assignments_of_trim keeps an
--     expired assignment for at least a day: a replica whose clock is late may still use it, and
--     its deletion is no change in the feed (record_change).
-- Called by: src/trim/store.rs.
-- In SQL because: security definer, it deletes the rows of all tenants. The advisory lock lets
--     one replica at a time trim.
create function trim_rows(p_table text, p_keep interval, p_from bigint, p_blocks bigint)
    returns table (deleted bigint, blocks bigint)
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    ended constant text := case p_table
        when 'sessions' then 'least(expires_at, refresh_expires_at, revoked_at)'
        when 'role_assignments' then 'expires_at'
        when 'api_keys' then 'least(expires_at, revoked_at)'
        when 'spent_assertions' then 'expires_at'
        when 'mail_links' then 'expires_at'
        when 'mail_outbox' then 'expires_at'
        when 'registrations' then 'expires_at'
    end;
begin
    if ended is null then
        raise exception 'the table % is not trimmed', p_table;
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:trim_rows', 0)) then
        return;
    end if;
    execute format('delete from %I where ctid >= $1 and ctid < $2 and %s <= now() - $3',
            p_table, ended)
        using format('(%s,0)', p_from)::tid, format('(%s,0)', p_from + p_blocks)::tid, p_keep;
    get diagnostics deleted = row_count;
    blocks := pg_relation_size(format('%I', p_table)::regclass)
        / current_setting('block_size')::bigint;
    return next;
end $$;

-- Returns the estimated number of rows of each table.
--
-- Decides: nothing. The numbers are metrics.
-- Called by: src/trim/store.rs, for metrics.
-- In SQL because: it reads the catalog.
create function estimated_rows() returns table (name text, rows bigint)
    language sql stable
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select c.relname::text, greatest(c.reltuples, 0)::bigint
    from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
      and c.relname <> '_sqlx_migrations'
    order by 1;
end;

revoke execute on function trim_rows(text, interval, bigint, bigint) from public;
grant execute on function trim_rows(text, interval, bigint, bigint) to tenantry_app;
revoke execute on function estimated_rows() from public;
grant execute on function estimated_rows() to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function trim_rows(text, interval, bigint, bigint) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
