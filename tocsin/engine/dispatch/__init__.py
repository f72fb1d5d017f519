"""The elected leader: hears commits, moves badges, and makes jobs of deliveries that are due."""
