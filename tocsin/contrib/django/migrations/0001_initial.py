"""Installs Tocsin's schemas; later versions of them are applied by each `migrate` (schema.after_migrate)."""

from typing import Any, ClassVar

from django.db import migrations, models

from tocsin.contrib.django.schema import create, drop


class Migration(migrations.Migration):
    """Both schemas, `tocsin` and `tocsin_queue`."""

    initial = True
    dependencies: ClassVar[list[Any]] = []
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="Decision",
            fields=[("id", models.BigAutoField(primary_key=True, serialize=False))],
            options={
                "verbose_name": "notification",
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
        migrations.RunPython(create, drop, hints={"app": "tocsin"}),
    ]
