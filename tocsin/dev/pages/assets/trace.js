// What came of the last press: each channel, how long it took, and why it did not go there.

const CHANNELS = {
  in_app: { name: "Inbox", icon: "#i-bell", where: ({ side }) => `#${side}` },
  email: { name: "Mail", icon: "#i-mail", where: () => "#mailbox" },
  push: { name: "Push", icon: "#i-phone", where: ({ side }) => `#${side}-phone` },
  web_push: { name: "Browser", icon: "#i-bell", where: ({ side }) => `#${side}` },
};
const ABSENT = ["no_subscription", "no_target"]; // channels that this person does not have
const POLL_SOON_FOR = 15_000; // milliseconds; after it the pages are read at the usual rate

export class Trace {
  constructor(element) {
    this.element = element;
    this.line = element.querySelector("p");
    this.list = element.querySelector("ul");
    this.steps = new Map();
    this.counts = new Map(); // of each person's bell
    this.began = 0;
  }

  /** Whether something is still on its way. */
  get waits() {
    const open = [...this.steps.values()].some(({ state }) => state === "waiting");
    return open && performance.now() - this.began < POLL_SOON_FOR;
  }

  begin(words) {
    this.words = words;
    this.start();
    this.steps.clear();
    this.list.replaceChildren();
    this.line.textContent = words;
  }

  /** From here on it is measured how long each channel takes. */
  start() {
    this.began = performance.now();
  }

  failed(why) {
    this.line.textContent = `${this.words}. ${why}`;
  }

  notified({ notification_id: id, topic, at, channels }, other) {
    Object.assign(this, { id, other, at: new Date(at).getTime() });
    if (id === null) {
      this.line.textContent = `${this.words}. ${other.name} does not follow ${topic ?? "this"}, and was not notified.`;
      return;
    }
    const reasons = [];
    for (const { channel, decision, reason, sentence } of channels) {
      if (ABSENT.includes(reason)) continue;
      const on = decision === "on" && reason !== "digest";
      this.add(channel, on ? "waiting" : "off", sentence);
      if (!on && reason !== "default") reasons.push(sentence);
    }
    this.line.textContent = [`${this.words} → ${other.name}.`, ...reasons].join(" ");
    if (this.countedAt > this.began) this.done("in_app", this.countedAt - this.began);
  }

  /** A bell moved; it may have done so before the response came. Its first count has what was sent before. */
  counted(person, count) {
    const before = this.counts.get(person) ?? -1;
    this.counts.set(person, count);
    if (count <= before) return;
    this.countedAt = performance.now();
    if (person === this.other?.person) this.done("in_app", this.countedAt - this.began);
  }

  see(arrivals, mails) {
    for (const { provider, data, at } of arrivals) {
      if (String(data.notification_id) !== String(this.id)) continue;
      this.done(provider === "web_push" ? "web_push" : "push", new Date(at) - this.at);
    }
    const mail = mails.find(
      ({ to, received_at }) => to.includes(this.other?.email) && new Date(received_at) >= this.at,
    );
    if (mail) this.done("email", new Date(mail.received_at) - this.at);
  }

  add(channel, state, sentence) {
    const { name, icon, where } = CHANNELS[channel] ?? { ...CHANNELS.in_app, name: channel };
    const element = document.getElementById("step").content.firstElementChild.cloneNode(true);
    element.querySelector("a").href = where(this.other);
    element.querySelector("use").setAttribute("href", icon);
    element.querySelector(".name").textContent = name;
    element.querySelector(".took").textContent = state === "off" ? "off" : "…";
    element.className = state;
    element.title = sentence;
    this.list.append(element);
    this.steps.set(channel, { element, state });
  }

  done(channel, milliseconds) {
    const step = this.steps.get(channel);
    if (step?.state !== "waiting") return;
    step.state = "done";
    step.element.className = "done";
    const took = Math.max(1, Math.round(milliseconds));
    step.element.querySelector(".took").textContent = took < 1000 ? `${took} ms` : `${(took / 1000).toFixed(1)} s`;
  }
}
