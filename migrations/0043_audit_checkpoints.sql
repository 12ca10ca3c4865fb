-- no-transaction
-- The trail of a tenant may begin after a checkpoint: the service deletes the oldest events when
-- their retention is over, and keeps the position and the hash of the last one, signed.
--
-- Each block is a transaction of its own, so that no call waits for two tables
-- (README.md). An attempt that fails is repeated from the start.

-- The last deleted event of each trail. No foreign key: the trail stays when its tenant is deleted.
begin;
create table if not exists audit_checkpoints (
    tenant_id uuid   not null,
    position  bigint not null,
    hash      bytea  not null,
    -- The id of the key that signed the statement.
    signed_by text   not null,
    -- A JWT with the tenant, the position, the hash and the times (src/audit/checkpoint.rs).
    statement text   not null,
    constraint audit_checkpoints_pkey primary key (tenant_id),
    constraint audit_checkpoints_position_check check (position > 0),
    constraint audit_checkpoints_hash_check check (octet_length(hash) = 32),
    constraint audit_checkpoints_statement_check check (octet_length(statement) <= 8192)
);
alter table audit_checkpoints enable row level security;
alter table audit_checkpoints force row level security;
drop policy if exists audit_checkpoints_of_tenant on audit_checkpoints;
create policy audit_checkpoints_of_tenant on audit_checkpoints
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
drop policy if exists audit_checkpoints_of_lookup on audit_checkpoints;
create policy audit_checkpoints_of_lookup on audit_checkpoints to tenantry_lookup
    using ((select require_primary())) with check (true);
grant select on audit_checkpoints to tenantry_app;
grant select, insert, update on audit_checkpoints to tenantry_lookup;
commit;

-- Places in the chain can be deleted only up to the checkpoint of the tenant.
begin;
drop policy if exists audit_chain_of_lookup on audit_chain;
create policy audit_chain_of_lookup on audit_chain for select to tenantry_lookup
    using ((select require_primary()));
drop policy if exists audit_chain_of_sealer on audit_chain;
create policy audit_chain_of_sealer on audit_chain for insert to tenantry_lookup
    with check (true);
drop policy if exists audit_chain_of_trim on audit_chain;
create policy audit_chain_of_trim on audit_chain for delete to tenantry_lookup
    using (position <= (
        select k.position from audit_checkpoints k where k.tenant_id = audit_chain.tenant_id));
grant delete on audit_chain to tenantry_lookup;
commit;

-- Events can be deleted only up to the checkpoint of the tenant, and only when they are at least 30
-- days old: the shortest AUDIT_RETENTION.
begin;
drop policy if exists audit_events_of_trim on audit_events;
create policy audit_events_of_trim on audit_events for delete to tenantry_lookup
    using (created_at <= now() - interval '30 days' and exists (
        select from audit_chain c
        join audit_checkpoints k on k.tenant_id = c.tenant_id and k.position >= c.position
        where c.tenant_id = audit_events.tenant_id and c.event_id = audit_events.event_id));
grant delete on audit_events to tenantry_lookup;
commit;
