"""The HTTP API: parse, store, reply; one file per resource."""
