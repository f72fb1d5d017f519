"""Fills the Django app's table from Tocsin's rows: `django_table.py DSN`."""

from __future__ import annotations

import json
import sys

import django
import django_inbox

django_inbox.setup(sys.argv[1])
django_inbox.create_table(django_inbox.model())
django_inbox.copy_stock()
print(json.dumps({"django": django.__version__}), flush=True)
