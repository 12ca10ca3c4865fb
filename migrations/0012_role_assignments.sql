create table role_assignments (
    tenant_id     uuid        not null,
    assignment_id uuid        not null,
    -- The subject: a user or a service account.
    user_id       uuid        not null,
    role_id       uuid        not null,
    scope         jsonb,
    -- scope_key_of(scope): a scope can be too long for an index.
    scope_key     bytea       not null default '',
    expires_at    timestamptz,
    created_at    timestamptz not null default now(),
    constraint role_assignments_pkey primary key (tenant_id, assignment_id),
    constraint role_assignments_subject_fkey foreign key (tenant_id, user_id)
        references subjects (tenant_id, subject_id) on delete cascade,
    constraint role_assignments_role_fkey foreign key (tenant_id, role_id)
        references roles (tenant_id, role_id),
    constraint role_assignments_key unique (tenant_id, user_id, role_id, scope_key),
    constraint role_assignments_scope_check check (
        (scope is null) = (scope_key = '') and coalesce(jsonb_typeof(scope), 'object') = 'object'
    ),
    -- The times that the service can read.
    constraint role_assignments_times_check check (
        created_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59+00'
        and coalesce(
            expires_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59+00', true)
    )
);

-- The order in which the holders of a role are listed.
create index role_assignments_role_idx on role_assignments (tenant_id, role_id, user_id);

alter table role_assignments enable row level security;
alter table role_assignments force row level security;
create policy role_assignments_of_tenant on role_assignments
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on role_assignments to tenantry_app;

create trigger role_assignments_scope before insert or update of scope, scope_key
    on role_assignments for each row execute function keep_scope();
create trigger role_assignments_change after insert or update or delete on role_assignments
    for each row execute function record_change('assignment', 'user_id');
create trigger role_assignments_requests after delete on role_assignments
    referencing old table as gone
    for each statement execute function forget_requests('assignment_id');
