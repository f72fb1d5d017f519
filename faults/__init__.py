"""The fault runner: real processes under faults from a seed, and the invariants that must hold afterwards.

`python -m faults --seed 7`, or `make faults SEED=7`; docs/reliability.md describes it.
"""
