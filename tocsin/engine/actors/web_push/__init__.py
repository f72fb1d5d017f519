"""Push to browsers by Web Push."""
