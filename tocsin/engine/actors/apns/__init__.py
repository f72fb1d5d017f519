"""Push to Apple devices by APNs."""
