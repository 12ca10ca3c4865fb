-- Reading the change feed, which looks across tenants.
grant select (tenant_id, change_id, xid, kind, subject_id) on changes to tenantry_lookup;
create policy changes_of_lookup on changes for select to tenantry_lookup using (true);

-- Every change that is visible now and was made by transaction p_from or a later
-- one, with the horizon of the same snapshot: all transactions below it have
-- ended, so a reader that has seen these need not look below it again. Changes
-- above the horizon are returned too, and will be again: a long transaction that
-- holds the horizon back must not keep later commits from being seen.
-- At least one row: of nulls but for the horizon when nothing changed.
create function read_changes(p_from bigint)
    returns table (horizon bigint, change_id bigint, tenant_id uuid, kind text, subject_id uuid)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        c.change_id, c.tenant_id, c.kind, c.subject_id
    from (values (1)) as one
    left join changes c on c.xid >= p_from::text::xid8
    order by c.xid, c.change_id;
end;

do $$
begin
    grant create on schema public to tenantry_lookup;
    revoke execute on function read_changes(bigint) from public;
    alter function read_changes(bigint) owner to tenantry_lookup;
    grant execute on function read_changes(bigint) to tenantry_app;
    revoke create on schema public from tenantry_lookup;
end $$;
