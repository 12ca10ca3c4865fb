create table roles (
    tenant_id   uuid        not null,
    role_id     uuid        not null,
    name        text        not null,
    -- 1 viewer, 2 member, 3 manager, 4 org_admin, 5 platform_admin
    level       smallint    not null,
    permissions text[]      not null default '{}',
    is_system   boolean     not null default false,
    version     bigint      not null default 1,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint roles_pkey primary key (tenant_id, role_id),
    constraint roles_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade,
    constraint roles_name_key unique (tenant_id, name),
    constraint roles_level_check check (level between 1 and 5),
    constraint roles_wildcard_check check (is_system or not permissions @> array['*:*'])
);

alter table roles enable row level security;
alter table roles force row level security;
create policy roles_of_tenant on roles
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on roles to tenantry_app;

create table role_assignments (
    tenant_id     uuid        not null,
    assignment_id uuid        not null,
    -- Of any kind: a user or a service account.
    user_id       uuid        not null,
    role_id       uuid        not null,
    scope         jsonb,
    -- SHA-256 of the scope's canonical JSON, empty without one: a scope can be
    -- too long for an index.
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
    )
);

-- In the order in which the holders of a role are listed.
create index role_assignments_role_idx on role_assignments (tenant_id, role_id, user_id);

alter table role_assignments enable row level security;
alter table role_assignments force row level security;
create policy role_assignments_of_tenant on role_assignments
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on role_assignments to tenantry_app;
