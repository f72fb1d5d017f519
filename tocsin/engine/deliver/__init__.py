"""From a job to its outcome: claim, render, send, settle."""
