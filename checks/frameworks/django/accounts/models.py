"""Two user models: one with integer keys and a profile, one with UUIDs. The settings choose."""

import uuid
from types import SimpleNamespace
from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser, AbstractUser, BaseUserManager
from django.db import models


class Member(AbstractUser):
    language = models.CharField(max_length=20, blank=True)
    zone = models.CharField(max_length=60, blank=True)

    @property
    def profile(self) -> SimpleNamespace:
        return SimpleNamespace(zone=self.zone)


class UuidMember(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = BaseUserManager()


class Order(models.Model):
    number = models.IntegerField(unique=True)
