"""What the benchmarks share: rounds in turn, a PostgreSQL with realistic data, peers, and the record."""
