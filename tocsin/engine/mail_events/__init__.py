"""Mail that comes back: the reports of mail servers and providers, each in its own form, read into one."""
