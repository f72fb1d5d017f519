"""For people: calls with the host app's JWT."""
