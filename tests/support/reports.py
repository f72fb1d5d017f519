"""Raw messages that report on a mail, in the forms of mail servers, written from the RFCs and their documents."""

from __future__ import annotations

TAG = "4711.0123456789ab"  # replaced by a genuine one
MESSAGE_ID = f"<delivery-{TAG}@example.com>"

ORIGINAL_HEADERS = f"""\
From: Example <notifications@example.com>
To: alice@example.net
Subject: New reply
Message-ID: {MESSAGE_ID}
X-Tocsin-Delivery: {TAG}
Date: Mon, 30 Nov 2026 09:00:00 +0000
"""

ORIGINAL = f"{ORIGINAL_HEADERS}\nHello Alice\n"


def report(
    *, notice: str, fields: str, original: str, kind: str = "delivery-status", headers: str = ""
) -> str:
    """Returns a multipart/report of RFC 6522."""
    return f"""\
From: MAILER-DAEMON@mx.example.net
To: notifications@example.com
Subject: Undelivered Mail Returned to Sender
Date: Mon, 30 Nov 2026 09:02:00 +0000
{headers}MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind}; boundary="=b"

--=b
Content-Type: text/plain; charset=utf-8

{notice}
--=b
Content-Type: message/{kind}

{fields}
--=b
{original}
--=b--
"""


WHOLE = f"Content-Type: message/rfc822\n\n{ORIGINAL}"
HEADERS_ONLY = f"Content-Type: text/rfc822-headers\n\n{ORIGINAL_HEADERS}"
NOTHING = "Content-Type: text/plain\n\nThe message is not returned."

POSTFIX = report(
    notice="This is the mail system at host mx.example.net.\n\n<alice@example.net>: unknown user",
    fields="""\
Reporting-MTA: dns; mx.example.net
X-Postfix-Queue-ID: 4F1B2C3D4E
X-Postfix-Sender: rfc822; notifications@example.com
Arrival-Date: Mon, 30 Nov 2026 09:00:01 +0000 (UTC)

Final-Recipient: rfc822; alice@example.net
Original-Recipient: rfc822;alice@example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: X-Postfix; unknown user: "alice"
""",
    original=WHOLE,
)

EXCHANGE = report(
    notice="Delivery has failed to these recipients or groups:\n\nalice@example.net",
    fields="""\
Reporting-MTA: dns;AM0PR01MB1234.eurprd01.prod.outlook.com
Received-From-MTA: dns;mail.example.com
Arrival-Date: Mon, 30 Nov 2026 09:00:01 +0000

Final-Recipient: rfc822;alice@example.net
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup
X-Display-Name: alice@example.net
""",
    original=HEADERS_ONLY,
    headers=f"In-Reply-To: {MESSAGE_ID}\n",
)

GMAIL = report(
    notice="** Address not found **\n\nYour message wasn't delivered to alice@example.net",
    fields=f"""\
Reporting-MTA: dns; googlemail.com
Received-From-MTA: dns; notifications@example.com
Arrival-Date: Mon, 30 Nov 2026 01:00:01 -0800 (PST)
X-Original-Message-ID: {MESSAGE_ID}

Final-Recipient: rfc822; alice@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.net. (192.0.2.1, the server for the domain example.net.)
Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist.
Last-Attempt-Date: Mon, 30 Nov 2026 01:02:01 -0800 (PST)
""",
    original=NOTHING,
)

EXIM = report(
    notice="""\
This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  alice@example.net
    host mx.example.net [192.0.2.1]
    SMTP error from remote mail server after RCPT TO:<alice@example.net>:
    550 5.1.1 <alice@example.net>: Recipient address rejected: User unknown""",
    fields="""\
Reporting-MTA: dns; relay.example.org

Action: failed
Final-Recipient: rfc822;alice@example.net
Status: 5.0.0
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550 5.1.1 <alice@example.net>: Recipient address rejected: User unknown
""",
    original=HEADERS_ONLY,
    headers="X-Failed-Recipients: alice@example.net\nAuto-Submitted: auto-replied\n",
)

OLD_EXIM = f"""\
X-Failed-Recipients: alice@example.net
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@relay.example.org>
To: notifications@example.com
Subject: Mail delivery failed: returning message to sender
Date: Mon, 30 Nov 2026 09:02:00 +0000

This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  alice@example.net
    SMTP error from remote mail server after RCPT TO:<alice@example.net>:
    host mx.example.net [192.0.2.1]: 550 5.1.1 User unknown

------ This is a copy of the message, including all the headers. ------

Return-path: <notifications@example.com>
{ORIGINAL}"""

QMAIL = f"""\
From: MAILER-DAEMON@qmail.example.net
To: notifications@example.com
Subject: failure notice
Date: 30 Nov 2026 09:02:00 -0000

Hi. This is the qmail-send program at qmail.example.net.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<alice@example.net>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.

Return-Path: <notifications@example.com>
Received: (qmail 123 invoked from network); 30 Nov 2026 09:00:02 -0000
{ORIGINAL}"""

FULL = POSTFIX.replace("5.1.1", "5.2.2").replace("unknown user", "over quota")
POLICY = EXIM.replace("550 5.1.1", "550 5.7.1").replace("Recipient address rejected", "Blocked")
GIVEN_UP = POSTFIX.replace("Status: 5.1.1", "Status: 4.4.1").replace("unknown user", "timed out")
DELAYED = GIVEN_UP.replace("Action: failed", "Action: delayed")
DELIVERED = POSTFIX.replace("Action: failed", "Action: delivered").replace("5.1.1", "2.0.0")

COMPLAINT = report(
    notice="This is an email abuse report for an email message received from IP 192.0.2.7.",
    fields="""\
Feedback-Type: abuse
User-Agent: ExampleReporter/1.0
Version: 1
Original-Mail-From: <notifications@example.com>
Arrival-Date: Mon, 30 Nov 2026 09:00:01 +0000
Source-IP: 192.0.2.7
""",
    original=WHOLE,
    kind="feedback-report",
)
NOT_SPAM = COMPLAINT.replace("Feedback-Type: abuse", "Feedback-Type: not-spam")

VACATION = f"""\
From: alice@example.net
To: notifications@example.com
Subject: Out of office
Auto-Submitted: auto-replied
In-Reply-To: {MESSAGE_ID}
Date: Mon, 30 Nov 2026 09:02:00 +0000

I am away until Monday.
"""


def with_tag(raw: str, tag: str) -> bytes:
    """Returns the message as it is on the wire, with this tag in place of the written one."""
    return raw.replace(TAG, tag).replace("\n", "\r\n").encode()
