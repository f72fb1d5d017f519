"""Shared parts of the benchmarks: interleaved rounds, a PostgreSQL with realistic data, peers, and the record."""
