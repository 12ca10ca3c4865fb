-- Returns what a sign-in compares the password with. No row when the tenant has no user with
-- this email.
--
-- Decides: a user can sign in when both the user and the tenant are active. The profile and
--     email_lookup are returned too: with them the service detects an email_index that was
--     moved to another user's row, before it compares the password.
-- Called by: src/credentials/password.rs. Anyone can cause the call with an email, so it
--     returns only what the service needs.
-- In SQL because: one round trip. It sets the tenant of the transaction itself.
create function sign_in_candidate(p_tenant uuid, p_email_index bytea)
    returns table (user_id uuid, active boolean, password_hash text, version bigint,
                   profile bytea, email_lookup bytea)
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);
    return query
    select u.user_id, u.state = 'active' and t.state = 'active', c.password_hash, u.version,
           u.profile, u.email_lookup
    from users u
    join tenants t on t.tenant_id = u.tenant_id
    left join credentials c on c.tenant_id = u.tenant_id and c.user_id = u.user_id
    where u.tenant_id = p_tenant and u.email_index = p_email_index;
end $$;

revoke execute on function sign_in_candidate(uuid, bytea) from public;
grant execute on function sign_in_candidate(uuid, bytea) to tenantry_app;
