"""All that runs SQL: one file a noun, one typed function a named statement of `sql/queries/<noun>.sql`."""
