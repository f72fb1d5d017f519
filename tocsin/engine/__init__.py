"""Deciding, queueing, delivering, counting, streaming."""
