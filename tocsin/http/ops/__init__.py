"""For operators: the operations page and its calls, for a key of the scope `ops`."""
