"""One SQL file per star table: its definition, and the source of its lineage."""
