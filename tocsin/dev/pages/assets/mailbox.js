// The mailbox: what was sent by SMTP, the newest first; each as HTML, as text and as it came over the wire.

const SHOWN = 30;

export class Mailbox {
  constructor(element, people) {
    this.part = (selector) => element.querySelector(selector);
    this.people = people; // names by address
    this.mails = [];
    this.shown = null;
    this.as = "html";
    for (const tab of element.querySelectorAll("[data-as]")) {
      tab.addEventListener("click", () => {
        this.as = tab.dataset.as;
        this.read(this.shown);
      });
    }
    this.part(".clear").addEventListener("click", async () => {
      await fetch("mail/", { method: "DELETE" });
      this.shown = null;
      await this.look();
    });
  }

  async look() {
    const response = await fetch(`mail/?limit=${SHOWN}`, { headers: { Accept: "application/json" } });
    if (!response.ok) return;
    const mails = await response.json();
    if (mails[0]?.id === this.mails[0]?.id && mails.length === this.mails.length && this.drawn) return;
    const known = new Set(this.mails.map(({ id }) => id));
    const first = !this.drawn;
    this.mails = mails;
    this.drawn = true;
    const list = this.part("ol");
    const chosen = list.querySelector("li:focus-within")?.dataset.id;
    list.replaceChildren(...mails.map((mail) => this.row(mail, !first && !known.has(mail.id))));
    this.part(".mails .nothing").hidden = mails.length > 0;
    this.part(".clear").hidden = mails.length === 0;
    list.querySelector(`[data-id="${chosen}"] button`)?.focus();
    // the newest is opened, unless somebody is reading just now
    const reading = [list, this.part(".reader")].some((part) => part.matches(":focus-within"));
    if (!reading || !mails.some(({ id }) => id === this.shown?.id)) this.read(mails[0] ?? null);
    else this.mark();
  }

  row(mail, isNew) {
    const row = document.getElementById("mail").content.firstElementChild.cloneNode(true);
    const button = row.querySelector("button");
    row.dataset.id = mail.id;
    row.classList.toggle("new", isNew);
    row.querySelector(".to").textContent = `To ${this.people.get(mail.to[0]) ?? mail.to[0]}`;
    row.querySelector(".about").textContent = mail.subject;
    row.querySelector("time").dateTime = mail.received_at;
    row.querySelector("time").textContent = new Date(mail.received_at).toLocaleTimeString("en-GB", {
      timeStyle: "medium",
    });
    button.addEventListener("click", () => this.read(mail));
    return row;
  }

  async read(mail) {
    const changed = mail?.id !== this.shown?.id;
    this.shown = mail;
    this.part(".reader").hidden = mail === null;
    this.mark();
    if (mail === null) return;
    const frame = this.part("iframe");
    const text = this.part("pre");
    this.part(".subject").textContent = mail.subject;
    if (changed || !frame.src) frame.src = `mail/${mail.id}/html/`;
    frame.hidden = this.as !== "html";
    text.hidden = !frame.hidden;
    if (this.as === "text") text.textContent = mail.text;
    if (this.as !== "source") return;
    const source = await (await fetch(`mail/${mail.id}/source/`)).text();
    if (this.shown === mail && this.as === "source") text.textContent = source; // unless something else is shown by now
  }

  mark() {
    for (const row of this.part("ol").children) {
      row.querySelector("button").setAttribute("aria-current", String(row.dataset.id === this.shown?.id));
    }
    for (const tab of this.part(".tabs").children) {
      tab.setAttribute("aria-pressed", String(tab.dataset.as === this.as));
    }
  }
}
