"""What Alembic runs to migrate: `services.storage.migrate` brings the connection and owns the transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
