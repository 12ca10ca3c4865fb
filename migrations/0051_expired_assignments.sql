-- The deletion of an expired role assignment is no change for the caches: it grants nothing
-- any more. A role can have any number of expired assignments, and DeleteRole deletes them in
-- one statement; a row in the feed for each of them took longer than a statement may take. The
-- clock of a replica may be a little late, so the assignment must have expired a minute ago.

create or replace trigger role_assignments_change after insert or update on role_assignments
    for each row execute function record_change('assignment', 'user_id');

create or replace trigger role_assignments_delete_change after delete on role_assignments
    for each row when (old.expires_at is null or old.expires_at > now() - interval '1 min')
    execute function record_change('assignment', 'user_id');
