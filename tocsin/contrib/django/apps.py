"""The Django app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TocsinConfig(AppConfig):
    """Registers checks and signals."""

    name = "tocsin.contrib.django"
    label = "tocsin"
    verbose_name = "Notifications"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Called once all models are loaded."""
        from tocsin.contrib.django import checks, people, schema

        checks.register_all()
        post_migrate.connect(schema.after_migrate, sender=self, dispatch_uid="tocsin.migrate")
        people.connect_signals()
