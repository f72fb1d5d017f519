// The demo: two windows of a small app, each with its own person. What is pressed in one notifies the other.

import { Browser } from "./browser.js";
import { Panel } from "./panel.js";
import { Mailbox } from "./mailbox.js";
import { Phone, readArrivals } from "./phones.js";
import { Trace } from "./trace.js";

const POLL_EVERY = 1000; // milliseconds between two reads of phones and mails
const POLL_SOON = 120; // while something is on its way
const COUNTED_WITHIN = 5000; // a press right after the page's load waits for the bell's first count, to see it rise

const trace = new Trace(document.getElementById("trace"));
const panels = [...document.querySelectorAll(".panel")].map((element) => new Panel(element));
const phones = new Map(
  [...document.querySelectorAll(".phone[data-token]")].map((element) => [
    element.closest(".panel").dataset.person,
    new Phone(element),
  ]),
);
const browser = new Browser();
const box = document.getElementById("mailbox");
const mailbox = box && new Mailbox(box, new Map(panels.map((panel) => [panel.email, panel.name])));
let wake = () => {};

async function act(panel, eventType, words) {
  const other = panels.find((each) => each.person === panel.other);
  trace.begin(`${panel.name}: ${words}`);
  await Promise.race([other.counted, new Promise((resolve) => setTimeout(resolve, COUNTED_WITHIN))]);
  trace.start();
  try {
    const sent = { event_type: eventType, me: panel.person, you: other.person };
    const response = await fetch("events/", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(sent),
    });
    const notified = await response.json();
    if (!response.ok) throw new Error(notified.detail ?? notified.title);
    trace.notified(notified, other);
    wake();
  } catch (error) {
    trace.failed(error.message);
  }
}

async function look() {
  const [arrivals] = await Promise.all([readArrivals(), mailbox?.look()]);
  for (const [person, phone] of phones) phone.show(arrivals.filter((each) => each.recipient === person));
  trace.see(arrivals, mailbox?.mails ?? []);
  await browser.show(arrivals);
}

async function follow() {
  for (;;) {
    // the service may be unavailable for a moment; each bell shows that
    if (!document.hidden) await look().catch(() => {});
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, trace.waits ? POLL_SOON : POLL_EVERY);
    });
  }
}

for (const panel of panels) {
  panel.onact = (eventType, words) => act(panel, eventType, words);
  const phone = phones.get(panel.person);
  if (phone) {
    phone.onopen = (id) => panel.openById(id);
    phone.onpress = (id, key) => panel.press(id, key);
  }
  panel.onnotification = (count) => trace.counted(panel.person, count);
}
document.addEventListener("visibilitychange", () => document.hidden || wake());
follow();
