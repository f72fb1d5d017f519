"""As projects with many migrations test: tables without migrations."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS

MIGRATION_MODULES = {each.rpartition(".")[2]: None for each in INSTALLED_APPS} | {"tocsin": None}
