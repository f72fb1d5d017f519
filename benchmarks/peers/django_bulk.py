"""A Django app's fan-out: `bulk_create` of one row for each person, with its best batch size.

To {"people"} it replies with the seconds that it took, in one transaction.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

from django_inbox import create_table, model, setup

BATCH = 2000  # 500, 5,000 and 10,000 were within 4 % of it


def main() -> None:
    setup(sys.argv[1])
    from django.db import transaction
    from django.utils import timezone

    notification = model()
    create_table(notification)
    print(json.dumps({"django": version("django")}), flush=True)
    for line in sys.stdin:
        people = [f"p{number}" for number in range(1, json.loads(line)["people"] + 1)]
        started = time.perf_counter()
        with transaction.atomic():
            notification.objects.bulk_create(
                (
                    notification(
                        recipient=person,
                        event_type="bulletin.new_chapter",
                        title="A new chapter in Ghent",
                        body="We meet each first Tuesday at the library.",
                        action_url="/chapters/ghent",
                        metadata={"chapter": "ghent"},
                        created_at=timezone.now(),
                    )
                    for person in people
                ),
                batch_size=BATCH,
            )
        print(json.dumps(time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
