"""Push to Android devices by FCM's HTTP v1 API."""
