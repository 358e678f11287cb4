"""Alembic's entry: run the migrations on the connection that `upgrade` hands over."""

from alembic import context

from mlfleet.catalogue.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
