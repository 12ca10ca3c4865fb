-- The changes of ended sessions are written by one statement. A user can have any number of live
-- sessions, and one statement ends all of them. A trigger for each row made that 2.5 times slower.

-- Writes a change for each session whose end changed.
--
-- Decides: which ends of sessions reach the caches of all replicas.
-- Called by: the trigger sessions_ended_change.
-- In SQL because: with a trigger, no statement can end a session without a row in the feed.
create or replace function record_ended_sessions() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into changes (tenant_id, kind, subject_id)
    select n.tenant_id, 'session', n.session_id
    from changed_rows n
    join earlier_rows e on e.tenant_id = n.tenant_id and e.session_id = n.session_id
    where n.revoked_at is distinct from e.revoked_at;
    return null;
end $$;

-- First, because it takes the strongest lock. A call that has read a session and then updates it
-- would wait for the lock of the new trigger, while the migration waits for the call.
drop trigger if exists sessions_change on sessions;

create or replace trigger sessions_ended_change after update on sessions
    referencing old table as earlier_rows new table as changed_rows
    for each statement execute function record_ended_sessions();
