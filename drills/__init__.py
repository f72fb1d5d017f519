"""Drills: an operation on a whole installation under load, and what it lost. docs/operations.md describes them."""
