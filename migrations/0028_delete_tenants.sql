-- Deletion of tenants in two steps. DeleteTenant marks the tenant as deleted and destroys its
-- data key, in one short transaction. A worker then deletes the tenant's rows in batches
-- (0029_purge_tenants.sql).
--
-- A deleted tenant has no row for the service: the policy of `tenants` hides the row, and the
-- functions of tenantry_lookup that return tenants leave it out. This also holds for replicas of
-- release 0.1.0. Their own DeleteTenant deletes all rows in one transaction, and still works.

alter table tenants add column deleted_at timestamptz;
-- The functions that require an active tenant need no condition on deleted_at. `not valid`:
-- there is no deleted tenant yet, so no row has to be read.
alter table tenants add constraint tenants_deleted_check
    check (deleted_at is null or state = 'suspended') not valid;

-- One read of the table of tenants, which has one row for each organisation.
create index tenants_deleted_idx on tenants (deleted_at) where deleted_at is not null;

alter policy tenants_of_tenant on tenants
    using (tenant_id = (select current_tenant()) and deleted_at is null);
-- Across tenants, only the row of a deleted tenant can be deleted.
create policy tenants_of_purge on tenants for delete to tenantry_lookup
    using (deleted_at is not null);
grant select (deleted_at), update (deleted_at), delete on tenants to tenantry_lookup;
grant delete on data_keys to tenantry_lookup;

-- Marks the tenant of the transaction as deleted. Returns false when it is no longer there.
--
-- Decides: from the commit on, nobody can sign in to the tenant, every decision about its
--     subjects denies, and its personal data cannot be read again, because its data key is
--     destroyed. The policy tenants_of_tenant limits it to the transaction's tenant. A retry of
--     the request that created the tenant does not return it.
-- Called by: src/tenants/store.rs. The caller has renamed and suspended the tenant, which frees
--     the slug, writes the change to the feed, and waits for the transactions that have
--     inserted users, service accounts or roles: the slug is a key, so its change and their
--     foreign keys need the lock of the tenant's row.
-- In SQL because: security definer, the service itself cannot write deleted_at, and the record
--     of the tenant's creation is in another tenant.
create function mark_tenant_deleted(p_tenant uuid) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    update tenants set deleted_at = now()
    where tenant_id = p_tenant and not is_platform and deleted_at is null;
    if not found then
        return false;
    end if;
    delete from data_keys where tenant_id = p_tenant;
    delete from idempotency_records where made_id = p_tenant;
    return true;
end $$;

-- As in 0014_find_tenants.sql, without deleted tenants.
--
-- Decides: a name finds one tenant, and only by its whole id or slug. Tenants cannot be
--     listed with it. A deleted tenant is not found.
-- Called by: src/tenants/mod.rs.
-- In SQL because: security definer, it reads across tenants. One round trip.
create or replace function find_tenant(p_key text)
    returns table (tenant_id uuid, slug text, state text, is_platform boolean)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.tenant_id, t.slug, t.state, t.is_platform
    from tenants t
    where (t.tenant_id = case
            when p_key ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then p_key::uuid
        end
       or t.slug = p_key)
      and t.deleted_at is null
    limit 1;
end;

-- As in 0014_find_tenants.sql, without deleted tenants.
--
-- Decides: only a transaction that works in the platform tenant sees other tenants. For any
--     other it returns nothing. Deleted tenants are not listed.
-- Called by: src/tenants/store.rs.
-- In SQL because: security definer, it reads across tenants.
create or replace function list_tenants(
    p_after uuid, p_limit bigint, p_state text, p_slug_like text
)
    returns table (
        tenant_id uuid, name text, slug text, settings jsonb, state text,
        version bigint, created_at timestamptz, updated_at timestamptz
    )
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.tenant_id, t.name, t.slug, t.settings, t.state, t.version, t.created_at, t.updated_at
    from tenants t
    where exists (
            select from tenants p where p.tenant_id = current_tenant() and p.is_platform
        )
      and t.deleted_at is null
      and t.tenant_id > p_after
      and (p_state is null or t.state = p_state)
      and (p_slug_like is null or t.slug like p_slug_like)
    order by t.tenant_id
    limit p_limit;
end;

-- Refuses a new row of a deleted tenant. Argument of the trigger: the constraint in the error.
--
-- Decides: a call that was admitted before the deletion creates nothing after it. An assignment
--     or a key whose transaction commits at the same moment as the deletion is purged. The
--     trigger sessions_tenant_active refuses new sessions.
-- Called by: the triggers of 0040_tenant_exists_triggers.sql.
--     src/pg/constraint_errors.rs maps the constraint to NOT_FOUND.
-- In SQL because: the check must run in the statement that inserts the row. The foreign key to
--     tenants does not refuse the row, because the row of the tenant still exists.
create function refuse_deleted_tenant() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not exists (
        select from tenants t where t.tenant_id = new.tenant_id and t.deleted_at is null
    ) then
        raise exception 'the tenant was deleted'
            using errcode = 'foreign_key_violation', constraint = tg_argv[0];
    end if;
    return null;
end $$;

revoke execute on function refuse_deleted_tenant() from public;

revoke execute on function mark_tenant_deleted(uuid) from public;
grant execute on function mark_tenant_deleted(uuid) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function mark_tenant_deleted(uuid) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
