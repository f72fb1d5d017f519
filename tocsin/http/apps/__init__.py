"""For apps: calls with an API key."""
