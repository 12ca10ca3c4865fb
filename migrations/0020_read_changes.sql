-- Readers of the change feed.

-- Returns every change that became visible after the snapshot p_seen, which the call before
-- returned: each change exactly once, whatever the order of the commits. The first call
-- passes null and gets only a snapshot. There is always at least one row; without changes
-- it has the snapshot, and nulls for the change.
--
-- server    The start time of the server. It shows the reader that another server took its
--           place.
-- missed    Changes after p_seen may be lost. Either they were deleted (p_seen is below the
--           floor), or p_seen is of another server: transaction ids went back.
--
-- Decides: which changes a replica must apply to its cache, and when it must drop all of it.
-- Called by: src/feed/follower.rs.
-- In SQL because: security definer, it reads the changes of all tenants. One round trip.
create function read_changes(p_seen pg_snapshot)
    returns table (
        snapshot pg_snapshot, server timestamptz, missed boolean,
        tenant_id uuid, kind text, subject_id uuid
    )
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select pg_current_snapshot(), pg_postmaster_start_time(),
        coalesce(pg_snapshot_xmin(p_seen) < (select changes_floor()), false)
            or coalesce(
                pg_snapshot_xmax(p_seen) > pg_snapshot_xmax(pg_current_snapshot()), false),
        c.tenant_id, c.kind, c.subject_id
    from (values (1)) as one
    left join changes c
        on c.xid >= pg_snapshot_xmin(p_seen) and not pg_visible_in_snapshot(c.xid, p_seen)
    order by c.xid, c.change_id;
end;

-- Returns what changed in a tenant by the transaction p_from and later ones, each object
-- once, p_limit of them at most. There is always at least one row, as in read_changes.
--
-- Decides: what a watcher that reconnects has missed.
-- Called by: src/feed/since.rs.
-- In SQL because: security definer, the service itself cannot read the floor. One round trip.
create function read_changes_since(p_tenant uuid, p_from xid8, p_limit bigint)
    returns table (snapshot pg_snapshot, missed boolean, kind text, subject_id uuid)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select pg_current_snapshot(),
        coalesce(p_from < (select changes_floor()), false)
            or p_from > pg_snapshot_xmax(pg_current_snapshot()),
        c.kind, c.subject_id
    from (values (1)) as one
    left join (
        select distinct c.kind, c.subject_id from changes c
        where c.tenant_id = p_tenant and c.xid >= p_from
        limit p_limit
    ) c on true;
end;

revoke execute on function read_changes(pg_snapshot) from public;
grant execute on function read_changes(pg_snapshot) to tenantry_app;
revoke execute on function read_changes_since(uuid, xid8, bigint) from public;
grant execute on function read_changes_since(uuid, xid8, bigint) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function read_changes(pg_snapshot) owner to tenantry_lookup;
alter function read_changes_since(uuid, xid8, bigint) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
