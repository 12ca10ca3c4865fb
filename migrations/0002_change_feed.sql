-- The change feed: one row for each change that can alter a decision, written in the
-- transaction of the change. Each replica follows it to keep its cache correct.
-- 0020_read_changes.sql reads it, 0021_trim_changes.sql deletes old rows.

create table changes (
    tenant_id  uuid        not null,
    change_id  bigint      generated always as identity,
    -- The transaction that made the change. Ids are assigned before the commit, so the
    -- order of change_id is not the order of commits. A reader compares xid with the
    -- snapshot of its last read instead.
    xid        xid8        not null default pg_current_xact_id(),
    kind       text        not null,
    subject_id uuid        not null,
    created_at timestamptz not null default now(),
    constraint changes_pkey primary key (tenant_id, change_id),
    constraint changes_kind_check
        check (kind in ('tenant', 'user', 'role', 'assignment', 'session'))
);

create index changes_order_idx on changes (xid, change_id);

-- Marks of the progress of transactions. When a mark was made, every transaction below its
-- horizon had ended. The horizon of the oldest mark is the floor: changes below it may be
-- deleted. The table holds no rows of tenants, and the service cannot read or write it.
create table change_marks (
    recorded_at timestamptz not null default clock_timestamp(),
    horizon     xid8        not null default pg_snapshot_xmin(pg_current_snapshot()),
    constraint change_marks_pkey primary key (recorded_at)
);

-- Returns the floor; null while nothing was deleted.
--
-- Decides: which changes may be deleted (policy changes_of_trim), and which readers are
--     told that changes may be missing (0020_read_changes.sql).
-- Called by: the policy changes_of_trim, read_changes, read_changes_since.
-- In SQL because: a policy uses it. Security definer: only tenantry_lookup reads the marks.
create function changes_floor() returns xid8
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select m.horizon from change_marks m order by m.recorded_at limit 1;
end;

revoke execute on function changes_floor() from public;
grant create on schema public to tenantry_lookup;
alter function changes_floor() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;

alter table changes enable row level security;
alter table changes force row level security;
create policy changes_of_tenant on changes
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy changes_of_lookup on changes for select to tenantry_lookup using (true);
-- Only changes below the floor can be deleted.
create policy changes_of_trim on changes for delete to tenantry_lookup
    using (xid < (select changes_floor()));
grant select, insert on changes to tenantry_app;
grant select (tenant_id, change_id, xid, kind, subject_id), delete on changes to tenantry_lookup;

alter table change_marks enable row level security;
alter table change_marks force row level security;
create policy change_marks_of_lookup on change_marks to tenantry_lookup
    using (true) with check (true);
grant select, insert, delete on change_marks to tenantry_lookup;

-- Writes one change to the feed. Arguments of the trigger: the kind of the change, and the
-- column with the id of the changed object.
--
-- Decides: together with the triggers named `..._change`, which changes reach the caches of
--     all replicas.
-- Called by: the triggers tenants_change, users_change, service_accounts_change,
--     api_keys_change, roles_change, role_assignments_change and sessions_change.
-- In SQL because: with a trigger, no statement can change a row without a row in the feed.
create function record_change() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
begin
    insert into changes (tenant_id, kind, subject_id)
    values ((changed ->> 'tenant_id')::uuid, tg_argv[0], (changed ->> tg_argv[1])::uuid);
    return null;
end $$;
