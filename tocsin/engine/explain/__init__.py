"""Why a person was notified or not, and the table of reasons."""
