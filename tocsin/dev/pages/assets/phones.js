// The phones: what arrived at the far ends of APNs and FCM, as a phone shows it.

const MOST = 12;
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60]];

/** All pushes, the newest first. */
export async function readArrivals() {
  const response = await fetch("phones/", { headers: { Accept: "application/json" } });
  return response.ok ? response.json() : [];
}

export class Phone {
  constructor(element) {
    this.element = element;
    this.part = (selector) => element.querySelector(selector);
    this.name = `${element.dataset.provider} ${element.dataset.token}`;
    this.banners = new Map();
    this.first = true;
    this.onopen = this.onpress = () => {};
  }

  show(arrivals) {
    const own = arrivals.filter((each) => `${each.provider} ${each.token}` === this.name);
    this.showBadge(own.find((each) => each.badge !== null)?.badge ?? 0);
    const alerts = new Map();
    for (const each of own.filter(({ kind }) => kind === "alert")) {
      const id = each.collapse_id ?? each.at;
      if (!alerts.has(id) && alerts.size < MOST) alerts.set(id, each);
    }
    this.showBanners([...alerts.values()]);
    this.part(".clock").textContent = new Date().toLocaleTimeString("en-GB", { timeStyle: "short" });
    this.first = false;
  }

  showBadge(badge) {
    const count = this.part(".count");
    const text = badge > 99 ? "99+" : String(badge);
    count.hidden = badge < 1;
    if (count.textContent === text) return;
    count.textContent = text;
    this.part(".count-words").textContent = `Badge: ${badge}`;
  }

  showBanners(alerts) {
    const kept = new Set(alerts.map(({ at }) => at));
    for (const [at, element] of this.banners) {
      if (kept.has(at)) continue;
      element.remove();
      this.banners.delete(at);
    }
    this.part(".banners").hidden = alerts.length === 0;
    this.part(".nothing").hidden = alerts.length > 0;
    for (const each of alerts.toReversed()) {
      if (!this.banners.has(each.at)) this.add(each);
      this.banners.get(each.at).querySelector("time").textContent = when(each.at);
    }
  }

  add(each) {
    const made = banner(each);
    made.querySelector("button").addEventListener("click", () => this.onopen(each.data.notification_id));
    for (const action of JSON.parse(each.data.actions ?? "[]")) this.addAction(made, each.data.notification_id, action);
    this.banners.set(each.at, made);
    this.part("ol").prepend(made);
    this.part(".banners").scrollTop = 0;
    if (this.first) return;
    made.classList.add("new");
    this.element.classList.remove("buzz");
    requestAnimationFrame(() => this.element.classList.add("buzz"));
  }

  /** A button of the push, as an app shows it. */
  addAction(made, id, { key, label }) {
    const line = made.querySelector(".actions");
    const button = Object.assign(document.createElement("button"), { type: "button", dir: "auto", textContent: label });
    button.addEventListener("click", async () => line.replaceChildren(await this.onpress(id, key)));
    line.append(button);
    line.hidden = false;
  }
}

function banner(arrival) {
  const element = document.getElementById("banner").content.firstElementChild.cloneNode(true);
  element.querySelector("button").textContent = arrival.title;
  element.querySelector(".body").textContent = arrival.body;
  element.querySelector("time").dateTime = arrival.at;
  return element;
}

function when(at) {
  const seconds = (Date.now() - new Date(at)) / 1000;
  const [unit, size] = units.find(([, length]) => seconds >= length) ?? [];
  return unit ? ago.format(-Math.floor(seconds / size), unit) : "now";
}
