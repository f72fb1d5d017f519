"""The delivery actors: one per provider, each knowing neither the database nor another actor."""
