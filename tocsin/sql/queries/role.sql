-- name: missing_rights
-- Which rights the role of this session lacks for a migration: the cure, and the reason.
with me as (
    select r.oid, r.rolname, r.rolsuper, r.rolcreaterole
    from pg_roles r
    where r.rolname = current_user
),
owned as (
    select n.nspname, n.nspowner, o.rolname as owner, o.rolsuper
    from pg_namespace n
    join pg_roles o on o.oid = n.nspowner
    where n.nspname in ('tocsin', 'tocsin_queue')
)
select
    format('create role %I nologin;', w.role) as cure,
    format('the role %s does not exist, and %s may not create roles', w.role, me.rolname) as reason
from me
cross join unnest(array['tocsin_app', 'tocsin_service']) w (role)
where not me.rolsuper
    and not me.rolcreaterole
    and to_regrole(w.role) is null
union all
select
    format('grant create on database %I to %I;', current_database(), me.rolname),
    format('the schemas tocsin and tocsin_queue do not exist, and %s may not create schemas', me.rolname)
from me
where not has_database_privilege(current_database(), 'CREATE')
    and (select count(*) from owned) < 2
union all
select
    format('grant %I to %I;', o.owner, me.rolname),
    format('the schema %s belongs to %s, and %s is no member of that role', o.nspname, o.owner, me.rolname)
from me, owned o
where not o.rolsuper
    and not pg_has_role(o.nspowner, 'MEMBER')
union all
select
    'run tocsin migrate once as a superuser',
    format('the schema %s belongs to the superuser %s; that run gives it to the role tocsin_owner', o.nspname, o.owner)
from me, owned o
where o.rolsuper
    and not me.rolsuper
union all
select
    'alter role tocsin_owner nosuperuser;',
    'the role tocsin_owner is a superuser, and it is to own functions that apps call'
from me
join pg_roles r on r.rolname = 'tocsin_owner'
where me.rolsuper
    and r.rolsuper;

-- name: create_roles
-- Statements that create missing roles; tocsin_owner only where a superuser would own the schemas otherwise.
select format(
    'do $do$ begin create role %I nologin; exception when duplicate_object or unique_violation then null; end $do$',
    w.role
)
from unnest(array['tocsin_app', 'tocsin_service', 'tocsin_owner']) w (role)
where to_regrole(w.role) is null
    and (
        w.role <> 'tocsin_owner'
        or (
            (select r.rolsuper from pg_roles r where r.rolname = current_user)
            and not exists (
                select
                from pg_namespace n
                join pg_roles o on o.oid = n.nspowner
                where n.nspname = 'tocsin'
                    and not o.rolsuper
            )
        )
    );

-- name: owner
-- The role that owns Tocsin's schemas, or is to own them: never a superuser.
select
    coalesce(
        (
            select o.rolname::text
            from pg_namespace n
            join pg_roles o on o.oid = n.nspowner
            where n.nspname = 'tocsin'
                and not o.rolsuper
        ),
        (select 'tocsin_owner' from pg_roles r where r.rolname = current_user and r.rolsuper),
        current_user::text
    ) as owner,
    current_user::text as acting;

-- name: act_as
-- Acts as another role until the transaction ends.
select set_config('role', :owner, true);

-- name: give_to_owner
-- Statements of a superuser that give both schemas and everything in them to the owner.
with ours as (
    select n.oid, n.nspname, n.nspowner
    from pg_namespace n
    where n.nspname in ('tocsin', 'tocsin_queue')
)
select format('create schema if not exists %%I authorization %%I', s.name, :owner::text)
from unnest(array['tocsin', 'tocsin_queue']) s (name)
union all
select format('alter schema %%I owner to %%I', o.nspname, :owner::text)
from ours o
where o.nspowner <> to_regrole(quote_ident(:owner))
union all
select format('alter table %%s owner to %%I', c.oid::regclass, :owner::text)
from ours o
join pg_class c on c.relnamespace = o.oid
where c.relowner <> to_regrole(quote_ident(:owner))
    and c.relkind in ('r', 'p', 'v', 'm', 'S')
    -- the sequence of a column goes with its table
    and not exists (
        select
        from pg_depend d
        where d.classid = 'pg_class'::regclass
            and d.objid = c.oid
            and d.deptype in ('a', 'i')
            and c.relkind = 'S'
    )
union all
select format('alter routine %%s owner to %%I', p.oid::regprocedure, :owner::text)
from ours o
join pg_proc p on p.pronamespace = o.oid
where p.proowner <> to_regrole(quote_ident(:owner))
union all
select format('alter type %%s owner to %%I', t.oid::regtype, :owner::text)
from ours o
join pg_type t on t.typnamespace = o.oid
left join pg_class c on c.oid = t.typrelid
where t.typowner <> to_regrole(quote_ident(:owner))
    and (t.typtype in ('e', 'd', 'r') or c.relkind = 'c');

-- name: is_superuser
-- Whether this session's role is a superuser.
select r.rolsuper
from pg_roles r
where r.rolname = current_user;

-- name: login_faults
-- Why a login that is granted a role can't be created, and the cure.
select
    'run tocsin migrate first' as cure,
    format('the role %%s does not exist', :granted::text) as reason
where to_regrole(:granted) is null
union all
select
    format(
        'run as an administrator: create role %%I login password ''…''; grant %%I to %%I;',
        :login::text, :granted::text, :login::text
    ),
    format('%%s may not create roles', r.rolname)
from pg_roles r
where r.rolname = current_user
    and not (r.rolsuper or r.rolcreaterole);

-- name: create_login
-- Statements that create a login, or set its password, and grant it a role.
select format('create role %%I', :login::text)
where to_regrole(:login) is null
union all
select format('alter role %%I login password %%L', :login::text, :password::text)
union all
-- keeps the values of a failing statement out of the server's log
select format('alter role %%I set log_parameter_max_length_on_error = 0', :login::text)
union all
select format('grant %%I to %%I', :granted::text, :login::text)
where not exists (
    select
    from pg_auth_members m
    where m.roleid = to_regrole(:granted)
        and m.member = to_regrole(:login)
);
