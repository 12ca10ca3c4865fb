-- Reading the change feed, which looks across tenants, and trimming it.
grant select (tenant_id, change_id, xid, kind, subject_id) on changes to tenantry_lookup;
create policy changes_of_lookup on changes for select to tenantry_lookup using (true);

-- How far transactions had come, now and then: all below the horizon had ended
-- when the mark was made. Changes below the oldest mark's horizon, the floor, may
-- be gone. The service itself neither reads nor writes it.
create table change_marks (
    recorded_at timestamptz not null default clock_timestamp(),
    horizon     xid8        not null default pg_snapshot_xmin(pg_current_snapshot()),
    constraint change_marks_pkey primary key (recorded_at)
);

alter table change_marks enable row level security;
alter table change_marks force row level security;
create policy change_marks_of_lookup on change_marks to tenantry_lookup
    using (true) with check (true);
grant select, insert, delete on change_marks to tenantry_lookup;

-- The floor; null while nothing was trimmed.
create function changes_floor() returns xid8
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select m.horizon from change_marks m order by m.recorded_at limit 1;
end;

-- Nothing can be deleted but what lies below the floor.
grant delete on changes to tenantry_lookup;
create policy changes_of_trim on changes for delete to tenantry_lookup
    using (xid < (select changes_floor()));

-- Every change that became visible since the snapshot p_seen, which an earlier
-- call returned: each exactly once, whatever order transactions end in, and no
-- other. Null stands for the first call, which returns only its snapshot.
-- At least one row: of nulls but for the snapshot when nothing changed.
--
-- server: when it started, by which a reader tells that another has taken its place.
-- missed: changes since p_seen may be lost. They were trimmed, or this is another
-- server's past: transaction ids went back.
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

-- What changed in a tenant by transaction p_from and later ones, each thing once,
-- p_limit of them at most. At least one row, as above.
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

-- Marks how far transactions have come, and deletes changes that every reader
-- has had p_keep for, a batch at most. Says how many it deleted; null when
-- somebody else is at it.
--
-- A reader that has read since a mark was made has seen all below its horizon, so
-- only one that has not for p_keep can miss anything, and the floor tells it.
create function trim_changes(p_keep interval, p_batch bigint) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    mark change_marks;
    deleted bigint;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:trim_changes', 0)) then
        return null;
    end if;
    insert into change_marks default values;
    select * into mark from change_marks
    where recorded_at <= clock_timestamp() - p_keep
    order by recorded_at desc limit 1;
    if not found then
        return 0;
    end if;
    delete from change_marks where recorded_at < mark.recorded_at;
    with old as (
        select tenant_id, change_id from changes
        where xid < mark.horizon
        order by xid, change_id limit p_batch
    )
    delete from changes c using old
    where c.tenant_id = old.tenant_id and c.change_id = old.change_id;
    get diagnostics deleted = row_count;
    return deleted;
end $$;

do $$
declare
    lookup text;
begin
    grant create on schema public to tenantry_lookup;
    foreach lookup in array array[
        'changes_floor()',
        'read_changes(pg_snapshot)',
        'read_changes_since(uuid, xid8, bigint)',
        'trim_changes(interval, bigint)'
    ] loop
        execute format('revoke execute on function %s from public', lookup);
        execute format('alter function %s owner to tenantry_lookup', lookup);
    end loop;
    revoke create on schema public from tenantry_lookup;
end $$;

grant execute on function read_changes(pg_snapshot) to tenantry_app;
grant execute on function read_changes_since(uuid, xid8, bigint) to tenantry_app;
grant execute on function trim_changes(interval, bigint) to tenantry_app;
