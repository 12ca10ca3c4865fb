-- Scopes of role assignments: their canonical form, and which scopes the service can read.

-- Returns a number in its canonical form, and any other value as it is.
--
-- Decides: 1.0 and 1 are the same number.
-- Called by: canonical_scope.
-- In SQL because: see canonical_scope.
create function canonical_number(p_value jsonb) returns jsonb
    language sql immutable strict
    set search_path = pg_catalog, public, pg_temp
return case when jsonb_typeof(p_value) = 'number'
    then to_jsonb(trim_scale((p_value #>> '{}')::numeric)) else p_value end;

-- Returns a scope in its canonical form.
--
-- Decides: a list is a set, so it is sorted and has no duplicates. A list of one value is
--     that value. Numbers have one form. Values that a scope may not have stay as they are.
-- Called by: keep_scope and scope_key_of. src/permissions/scope.rs reads this form.
-- In SQL because: the trigger role_assignments_scope applies it to every writer.
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

-- Returns the key of a scope: SHA-256 of the canonical form's JSON, without white space and
-- with the names in the order of their bytes. Empty without a scope, and for `{}`.
--
-- Decides: two scopes are the same when their keys are (role_assignments_key).
-- Called by: keep_scope, src/roles/assignments.rs.
-- In SQL because: the column scope_key and the queries that compare with it need the same
--     function.
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

-- Returns whether the service can read the scope of an assignment.
--
-- Decides: a scope has only plain values and lists of plain values, and its numbers fit into
--     a double. An assignment with another scope does not apply.
-- Called by: role_names (0015_decide_permissions.sql). src/permissions/scope.rs has the same
--     rule for decisions.
-- In SQL because: role_names is in SQL.
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

-- Brings the scope of a row into its canonical form, and sets its key.
--
-- Decides: every stored scope has the canonical form, and scope_key belongs to it.
-- Called by: the trigger role_assignments_scope.
-- In SQL because: with a trigger, no statement can store another form.
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

revoke execute on function canonical_number(jsonb) from public;
grant execute on function canonical_number(jsonb) to tenantry_app;
revoke execute on function canonical_scope(jsonb) from public;
grant execute on function canonical_scope(jsonb) to tenantry_app;
revoke execute on function scope_key_of(jsonb) from public;
grant execute on function scope_key_of(jsonb) to tenantry_app;
revoke execute on function scope_is_readable(jsonb) from public;
grant execute on function scope_is_readable(jsonb) to tenantry_app;
