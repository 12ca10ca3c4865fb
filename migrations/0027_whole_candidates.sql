-- A sign-in sees what its candidate was sealed with: an index of an email that was moved to
-- another user is found out before a password is compared.

drop function sign_in_candidate(uuid, bytea);

-- What a sign-in compares its password with, in one round trip. No row when
-- the tenant has no such user. It runs for whoever knows an email, so it gives
-- nothing that the service does not need.
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
