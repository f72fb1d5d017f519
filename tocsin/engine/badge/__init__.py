"""Unread counts, open streams and their positions."""
