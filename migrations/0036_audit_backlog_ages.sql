-- The ages of the backlogs of the audit trail, for metrics and alerts.

-- The time at which an event was put into the outbox. Existing rows get the time of this
-- migration; the default is a constant for them, so the table is not rewritten.
alter table audit_outbox add column queued_at timestamptz not null default now();

-- The outbox is small: its rows wait only until Redis accepts them.
create index audit_outbox_queued_idx on audit_outbox (queued_at);

-- Returns the age in seconds of the oldest event that waits for its position, and of the oldest
-- event that waits to be sent to Redis; 0 when none waits.
--
-- Decides: which event of a backlog is the oldest: by the id, or by the time in the outbox.
-- Called by: src/audit/backlog.rs.
-- In SQL because: security definer, it reads across tenants.
create function audit_backlog_ages()
    returns table (unsealed double precision, unsent double precision)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select
        greatest(coalesce((
            select extract(epoch from clock_timestamp() - e.created_at)
            from (select q.tenant_id, q.event_id from audit_queue q
                  order by q.event_id limit 1) oldest
            join audit_events e
                on e.tenant_id = oldest.tenant_id and e.event_id = oldest.event_id
        ), 0), 0)::double precision,
        greatest(coalesce((
            select extract(epoch from clock_timestamp() - min(o.queued_at)) from audit_outbox o
        ), 0), 0)::double precision;
end;

revoke execute on function audit_backlog_ages() from public;
grant execute on function audit_backlog_ages() to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function audit_backlog_ages() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
