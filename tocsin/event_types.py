"""The event types of the default catalogue as constants, and those of your own catalogue file by name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

BULLETIN_NEW_CHAPTER: Final = "bulletin.new_chapter"
BULLETIN_NEW_ORG: Final = "bulletin.new_org"
FORUM_NEW_THREAD: Final = "forum.new_thread"
FORUM_NEW_REPLY: Final = "forum.new_reply"
FORUM_MENTION: Final = "forum.mention"
ELECTION_OPENED: Final = "election.opened"
ELECTION_RESULTS: Final = "election.results"
ELECTION_REMINDER: Final = "election.reminder"
BILLING_INVOICE_ISSUED: Final = "billing.invoice_issued"
BILLING_PAYMENT_CONFIRMED: Final = "billing.payment_confirmed"
BILLING_PAYMENT_DUE: Final = "billing.payment_due"
APPROVAL_REQUESTED: Final = "approval.requested"
APPROVAL_DECIDED: Final = "approval.decided"
EVENT_INVITED: Final = "event.invited"
EVENT_CHANGED: Final = "event.changed"
EVENT_REMINDER: Final = "event.reminder"
LEARNING_ASSIGNED: Final = "learning.assigned"
LEARNING_CERTIFICATE_READY: Final = "learning.certificate_ready"
LEARNING_DUE_SOON: Final = "learning.due_soon"
COMPLIANCE_REQUIREMENT_DUE: Final = "compliance.requirement_due"
COMPLIANCE_OVERDUE: Final = "compliance.overdue"
RECOGNITION_RECEIVED: Final = "recognition.received"
MESSAGES_NEW_DM: Final = "messages.new_dm"
MESSAGES_GROUP_MENTION: Final = "messages.group_mention"


def read_constants(path: Path) -> dict[str, str]:
    """Returns the event types of a catalogue file: `{"SHOP_ORDER_SENT": "shop.order_sent", …}`.

    `tocsin event-types apply` checks the file. Raises OSError, and ValueError where it is not TOML.
    """
    found = tomllib.loads(path.read_text("utf-8"))
    return {re.sub(r"\W", "_", name).upper(): name for name in found.get("event_types", {})}
