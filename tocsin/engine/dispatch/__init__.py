"""The elected leader: finds what was committed, announces badges, and makes jobs of deliveries that are due."""
