-- Indexes for readers of the trail that ask for the events of a session or of a request.
--
-- On a large database, create both indexes with `create index concurrently`, outside of
-- `tenantry migrate`, before this migration (README.md): writes to the trail do not wait then, and
-- the statements here have no effect. The names must be the same.
create index if not exists audit_events_session_idx
    on audit_events (tenant_id, session_id, created_at, event_id) where session_id is not null;
create index if not exists audit_events_request_idx
    on audit_events (tenant_id, request_id, created_at, event_id);
