-- What is stored has one form, and nothing that was stored takes more than itself away.

-- A number in its one form; what is none as it is.
create function canonical_number(p_value jsonb) returns jsonb
    language sql immutable strict
    set search_path = pg_catalog, public, pg_temp
return case when jsonb_typeof(p_value) = 'number'
    then to_jsonb(trim_scale((p_value #>> '{}')::numeric)) else p_value end;

-- A scope's one form: lists are sets, so sorted and without doubles, and a list of one
-- value is that value; 1.0 is 1. What no scope may have is left as it is.
create function canonical_scope(p_scope jsonb) returns jsonb
    language sql immutable strict
    set search_path = pg_catalog, public, pg_temp
return (
    select coalesce(jsonb_object_agg(entry.key, case
        when jsonb_typeof(entry.value) = 'array' then (
            select case when count(*) = 1 then jsonb_agg(item) -> 0
                else coalesce(jsonb_agg(item order by
                    jsonb_typeof(item),
                    case when jsonb_typeof(item) = 'number' then (item #>> '{}')::numeric end,
                    (item #>> '{}') collate "C"
                ), '[]') end
            from (
                select distinct canonical_number(listed.value) as item
                from jsonb_array_elements(entry.value) listed
            ) items
        )
        else canonical_number(entry.value)
    end), '{}')
    from jsonb_each(p_scope) entry
);

-- What makes two scopes the same: the hash of the one form's JSON without white space,
-- its keys in the order of their bytes; empty for none.
create function scope_key_of(p_scope jsonb) returns bytea
    language sql immutable
    set search_path = pg_catalog, public, pg_temp
return case when p_scope is null or p_scope = '{}' then ''::bytea else (
    select sha256(convert_to('{' || string_agg(
        to_jsonb(entry.key)::text || ':' || case
            when jsonb_typeof(entry.value) = 'array' then (
                select '[' || coalesce(string_agg(listed.value::text, ',' order by listed.nth), '')
                    || ']'
                from jsonb_array_elements(entry.value) with ordinality listed (value, nth)
            )
            else entry.value::text
        end, ',' order by entry.key collate "C"
    ) || '}', 'UTF8'))
    from jsonb_each(canonical_scope(p_scope)) entry
) end;

-- Whether an assignment's scope can be read by the service: plain values and lists of
-- those, whose numbers a double holds.
create function scope_is_readable(p_scope jsonb) returns boolean
    language sql immutable
    set search_path = pg_catalog, public, pg_temp
return p_scope is null or not exists (
    select from jsonb_each(p_scope) entry
    cross join lateral jsonb_array_elements(
        case when jsonb_typeof(entry.value) = 'array' then entry.value
            else jsonb_build_array(entry.value) end
    ) listed
    where jsonb_typeof(listed.value) in ('object', 'array', 'null')
       or case when jsonb_typeof(listed.value) = 'number'
            then abs((listed.value #>> '{}')::numeric) > 1.7976931348623157e308 end
);

-- No writer can forget it.
create function keep_scope() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if jsonb_typeof(new.scope) = 'object' then
        new.scope := canonical_scope(new.scope);
    end if;
    if new.scope is null or jsonb_typeof(new.scope) = 'object' then
        new.scope_key := scope_key_of(new.scope);
    end if;
    return new;
end $$;

-- The assignments of before. Row security binds the owner too while it is forced.
alter table role_assignments no force row level security;

-- Of those that are the same now, the one that lasts longest stays.
delete from role_assignments a using (
    select tenant_id, assignment_id, row_number() over (
        partition by tenant_id, user_id, role_id, scope_key_of(scope)
        order by expires_at desc nulls first, assignment_id
    ) as nth
    from role_assignments where scope is not null
) doubles
where doubles.nth > 1
  and a.tenant_id = doubles.tenant_id and a.assignment_id = doubles.assignment_id;

update role_assignments
set scope = canonical_scope(scope), scope_key = scope_key_of(scope)
where scope is not null
  and (scope_key <> scope_key_of(scope) or scope::text <> canonical_scope(scope)::text);

alter table role_assignments force row level security;

create trigger role_assignments_scope before insert or update of scope, scope_key
    on role_assignments for each row execute function keep_scope();

-- Times that the service can read. What is there is not looked at again.
alter table role_assignments add constraint role_assignments_times_check check (
    created_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59+00'
    and coalesce(expires_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59+00', true)
) not valid;

-- A plain list, without nulls.
alter table roles add constraint roles_permissions_check check (
    case when coalesce(array_ndims(permissions), 1) = 1
        then array_position(permissions, null) is null else false end
) not valid;

-- As in 0008, with each grant's assignment, which the log names where its scope can't
-- be read.
create or replace function subject_standings(p_tenant uuid, p_users uuid[], p_session uuid)
    returns table (
        tenant_slug text, tenant_state text, is_platform boolean, api_key_bearer boolean,
        session_live boolean, roles jsonb, subjects jsonb, snapshot_xmax xid8
    )
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);
    return query
    with held as materialized (
        select a.user_id, a.assignment_id, a.role_id, a.scope,
            extract(epoch from a.expires_at)::bigint as ends
        from role_assignments a
        where a.tenant_id = p_tenant and a.user_id = any (p_users)
          and (a.expires_at is null or a.expires_at > now())
    ), by_user as (
        select h.user_id, jsonb_agg(jsonb_build_object(
            'assignment_id', h.assignment_id, 'role_id', h.role_id, 'scope', h.scope,
            'expires_at', h.ends
        )) as grants
        from held h group by h.user_id
    )
    select t.slug, t.state, t.is_platform,
        coalesce(t.settings -> 'api_key_bearer' = 'true', false),
        case when p_session is not null then exists (
            select from sessions s
            where s.tenant_id = p_tenant and s.session_id = p_session
              and s.user_id = any (p_users)
              and s.revoked_at is null and s.expires_at > now()
        ) or exists (
            select from api_keys k
            where k.tenant_id = p_tenant and k.key_id = p_session
              and k.account_id = any (p_users)
              and k.revoked_at is null and k.expires_at > now()
        ) end,
        coalesce((
            select jsonb_agg(jsonb_build_object(
                'role_id', r.role_id, 'name', r.name, 'level', r.level,
                'permissions', r.permissions
            ))
            from roles r
            where r.tenant_id = p_tenant and r.role_id in (select h.role_id from held h)
        ), '[]'),
        coalesce((
            select jsonb_agg(jsonb_build_object(
                'user_id', u.user_id, 'state', u.state, 'grants', coalesce(b.grants, '[]')
            ))
            from (
                select user_id, state from users
                where tenant_id = p_tenant and user_id = any (p_users)
                union all
                select account_id, 'active' from service_accounts
                where tenant_id = p_tenant and account_id = any (p_users)
            ) u
            left join by_user b on b.user_id = u.user_id
        ), '[]'),
        pg_snapshot_xmax(pg_current_snapshot())
    from tenants t
    where t.tenant_id = p_tenant;
end $$;

-- As in 0008, without roles whose assignment can't be read: it does not apply.
create or replace function role_names(p_tenant uuid, p_user uuid) returns text[]
    language sql stable
    set search_path = pg_catalog, public, pg_temp
return array(
    select distinct r.name
    from role_assignments a
    join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
    where a.tenant_id = p_tenant and a.user_id = p_user
      and (a.expires_at is null or a.expires_at > now())
      and scope_is_readable(a.scope)
    order by r.name
);

-- Names in the form that is compared, as the service makes it: null for a name of
-- before that clashes with an older one, so that both stay, and nobody gets a third.
alter table roles add column name_key text;
alter table service_accounts add column name_key text;

alter table roles no force row level security;
alter table service_accounts no force row level security;

with keyed as (
    select tenant_id, role_id,
        btrim(regexp_replace(lower(name collate "C"), '[ ._-]+', '-', 'g'), '-') as key
    from roles
), firsts as (
    select distinct on (tenant_id, key) tenant_id, role_id, key
    from keyed order by tenant_id, key, role_id
)
update roles r set name_key = f.key
from firsts f where r.tenant_id = f.tenant_id and r.role_id = f.role_id;

with keyed as (
    select tenant_id, account_id,
        btrim(regexp_replace(lower(normalize(name, nfkc)), '\s+', ' ', 'g')) as key
    from service_accounts
), firsts as (
    select distinct on (tenant_id, key) tenant_id, account_id, key
    from keyed order by tenant_id, key, account_id
)
update service_accounts s set name_key = f.key
from firsts f where s.tenant_id = f.tenant_id and s.account_id = f.account_id;

alter table roles force row level security;
alter table service_accounts force row level security;

create unique index roles_name_key_idx on roles (tenant_id, name_key);
create unique index service_accounts_name_key_idx on service_accounts (tenant_id, name_key);

revoke execute on function canonical_number(jsonb) from public;
grant execute on function canonical_number(jsonb) to tenantry_app;
revoke execute on function canonical_scope(jsonb) from public;
grant execute on function canonical_scope(jsonb) to tenantry_app;
revoke execute on function scope_key_of(jsonb) from public;
grant execute on function scope_key_of(jsonb) to tenantry_app;
revoke execute on function scope_is_readable(jsonb) from public;
grant execute on function scope_is_readable(jsonb) to tenantry_app;
