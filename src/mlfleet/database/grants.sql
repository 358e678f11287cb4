-- What a tenant's role may do inside its own database: rows, never the schema.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mlfleet_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO mlfleet_tenant;
REVOKE INSERT, UPDATE, DELETE ON public.alembic_version FROM mlfleet_tenant;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO mlfleet_tenant;
