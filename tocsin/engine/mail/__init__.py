"""Everything between a delivery and a MIME message."""
