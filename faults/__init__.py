"""The fault runner: real processes under faults from a seed, and what must hold once all is quiet again.

`python -m faults --seed 7`, or `make faults SEED=7`; docs/reliability.md describes it.
"""
