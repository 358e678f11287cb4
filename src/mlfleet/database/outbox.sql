-- Registry changes leave through this table: one row per change, written by the same transaction
-- as the change itself, so neither is there without the other. Whoever relays a row deletes it
-- (FOR UPDATE SKIP LOCKED: ids may become visible out of order).
--
-- kind: <table's thing>.<what happened>, for example
--   registered_model.created|updated|renamed|deleted
--   model_version.created|updated|stage_changed|deleted
--   registered_model_alias.set|deleted, registered_model_tag.set|deleted, model_version_tag.set|deleted
-- data: {"new": row or null, "old": row or null}, columns as MLflow names them.
CREATE TABLE public.mlfleet_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    model_name text NOT NULL,
    data jsonb NOT NULL
);

CREATE FUNCTION public.mlfleet_outbox_record() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    thing text := TG_ARGV[0];
    happened text := TG_ARGV[1];
    row_new jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    row_old jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
BEGIN
    IF TG_OP = 'DELETE' THEN
        happened := 'deleted';
    ELSIF TG_OP = 'UPDATE' THEN
        -- MLflow touches the model's time whenever a version changes: not an event of the model.
        IF row_new - 'last_updated_time' = row_old - 'last_updated_time' THEN
            RETURN NULL;
        ELSIF thing = 'model_version' AND row_new->'current_stage' <> row_old->'current_stage' THEN
            happened := 'stage_changed';
        ELSIF thing = 'registered_model' AND row_new->'name' <> row_old->'name' THEN
            happened := 'renamed';
        ELSIF happened = 'created' THEN
            happened := 'updated';
        END IF;
    END IF;
    INSERT INTO public.mlfleet_outbox (kind, model_name, data)
    VALUES (
        thing || '.' || happened,
        coalesce(row_new, row_old)->>'name',
        jsonb_build_object('new', row_new, 'old', row_old)
    );
    RETURN NULL;
END
$body$;

CREATE TRIGGER mlfleet_outbox AFTER INSERT OR UPDATE OR DELETE ON public.registered_models
    FOR EACH ROW EXECUTE FUNCTION public.mlfleet_outbox_record('registered_model', 'created');
CREATE TRIGGER mlfleet_outbox AFTER INSERT OR UPDATE OR DELETE ON public.model_versions
    FOR EACH ROW EXECUTE FUNCTION public.mlfleet_outbox_record('model_version', 'created');
CREATE TRIGGER mlfleet_outbox AFTER INSERT OR UPDATE OR DELETE ON public.registered_model_aliases
    FOR EACH ROW EXECUTE FUNCTION public.mlfleet_outbox_record('registered_model_alias', 'set');
CREATE TRIGGER mlfleet_outbox AFTER INSERT OR UPDATE OR DELETE ON public.registered_model_tags
    FOR EACH ROW EXECUTE FUNCTION public.mlfleet_outbox_record('registered_model_tag', 'set');
CREATE TRIGGER mlfleet_outbox AFTER INSERT OR UPDATE OR DELETE ON public.model_version_tags
    FOR EACH ROW EXECUTE FUNCTION public.mlfleet_outbox_record('model_version_tag', 'set');
