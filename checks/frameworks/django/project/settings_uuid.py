"""The same project with users that have UUIDs, an email as their name, and nothing else."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS, TOCSIN

AUTH_USER_MODEL = "accounts.UuidMember"
INSTALLED_APPS = [each for each in INSTALLED_APPS if each != "django.contrib.admin"]
TOCSIN = TOCSIN | {"USER": {"name": lambda user: user.email.partition("@")[0]}}
