"""The model behind the admin page; it has no table."""

from django.db import models


class Decision(models.Model):
    """What Tocsin decided for a notification, and why: read by SQL, for the admin page and its permission."""

    id = models.BigAutoField(primary_key=True)

    class Meta:
        """Nothing is created or stored."""

        managed = False
        default_permissions = ("view",)
        verbose_name = "notification"
