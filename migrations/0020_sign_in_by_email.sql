-- Sign-in by email alone, what ends a token for a new password, and no sessions in a
-- suspended tenant.

-- The tenants that a sign-in without a tenant may mean: those that have an active user
-- with this email, verified addresses first, then the oldest, three at most.
-- `find_tenant_by_email` stays for the version before this one, which serves meanwhile.
grant select (user_id, state, email_verified, created_at) on users to tenantry_lookup;

create function sign_in_tenants(p_email_lookup bytea, p_only_verified boolean)
    returns table (tenant_id uuid)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select u.tenant_id
    from users u
    join tenants t on t.tenant_id = u.tenant_id
    where u.email_lookup = p_email_lookup
      -- false < true. Written so, the index below answers it: addresses that strangers
      -- have registered and nobody has verified are not read.
      and u.email_verified >= p_only_verified
      and u.state = 'active' and t.state = 'active'
    order by u.email_verified desc, u.created_at, u.user_id
    limit 3;
end;

create index users_email_candidates_idx
    on users (email_lookup, email_verified desc, created_at, user_id);
drop index users_email_across_tenants_idx;

grant create on schema public to tenantry_lookup;
revoke execute on function sign_in_tenants(bytea, boolean) from public;
grant execute on function sign_in_tenants(bytea, boolean) to tenantry_app;
alter function sign_in_tenants(bytea, boolean) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;

-- A token in a mail proves that its bearer reads that address, and is for a user that
-- may sign in: it ends with either, and does not come back when the user is enabled.
create trigger users_resets after update of email_index, state on users
    for each row
    when (old.email_index is distinct from new.email_index or old.state is distinct from new.state)
    execute function end_password_resets();

-- What opens a session looks at the tenant and then may wait for its user's lock, while
-- the tenant is suspended. This looks again, by a snapshot of its own.
create function refuse_suspended() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not exists (
        select from tenants t where t.tenant_id = new.tenant_id and t.state = 'active'
    ) then
        raise exception 'the tenant is suspended'
            using errcode = 'check_violation', constraint = 'sessions_tenant_active';
    end if;
    return null;
end $$;

revoke execute on function refuse_suspended() from public;

create trigger sessions_tenant_active after insert on sessions
    for each row execute function refuse_suspended();
