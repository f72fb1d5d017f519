"""Tocsin as a Django app: schemas by `manage.py migrate`, users kept in step, the bell, system checks, an admin page.

Add "tocsin.contrib.django" to INSTALLED_APPS, and TOCSIN = {…} to the settings: docs/guides/django.md.
"""
