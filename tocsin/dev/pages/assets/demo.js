// The demo: two windows of a small app, each with its own person. What is pressed in one notifies the other.

import { Desk } from "./desk.js";
import { Mailbox } from "./mailbox.js";
import { Phone, readArrivals } from "./phones.js";
import { Trace } from "./trace.js";

const CALM = 1000; // milliseconds between two looks at phones and mails
const EAGER = 120; // while something is on its way

const trace = new Trace(document.getElementById("trace"));
const desks = [...document.querySelectorAll(".desk")].map((element) => new Desk(element));
const phones = new Map(
  [...document.querySelectorAll(".phone[data-token]")].map((element) => [
    element.closest(".desk").dataset.person,
    new Phone(element),
  ]),
);
const box = document.getElementById("mailbox");
const mailbox = box && new Mailbox(box, new Map(desks.map((desk) => [desk.email, desk.name])));
let wake = () => {};

async function act(desk, eventType, words) {
  const other = desks.find((each) => each.person === desk.other);
  trace.begin(`${desk.name}: ${words}`);
  try {
    const sent = { event_type: eventType, me: desk.person, you: other.person };
    const answer = await fetch("events/", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(sent),
    });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail ?? told.title);
    trace.told(told, other);
    wake();
  } catch (error) {
    trace.failed(error.message);
  }
}

async function look() {
  const [arrivals] = await Promise.all([readArrivals(), mailbox?.look()]);
  for (const [person, phone] of phones) phone.show(arrivals.filter((each) => each.recipient === person));
  trace.see(arrivals, mailbox?.mails ?? []);
}

async function follow() {
  for (;;) {
    // the service may be unavailable for a moment; each bell shows that
    if (!document.hidden) await look().catch(() => {});
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, trace.waits ? EAGER : CALM);
    });
  }
}

for (const desk of desks) {
  desk.onact = (eventType, words) => act(desk, eventType, words);
  const phone = phones.get(desk.person);
  if (phone) phone.onopen = (id) => desk.openById(id);
  desk.onnotification = (count) => trace.counted(desk.person, count);
}
document.addEventListener("visibilitychange", () => document.hidden || wake());
follow();
