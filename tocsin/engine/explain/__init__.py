"""Why somebody was notified or not, and the table of reasons."""
