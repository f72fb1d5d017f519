// The phones of the demo page: what arrived, asked for each second while somebody looks.

const EACH = 1000;
const MOST = 20;

const section = document.getElementById("phones");
const all = new URL("phones/", document.baseURI);
const theirs = new URL(`?person=${encodeURIComponent(section.dataset.person)}`, all);
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60]];

function when(at) {
  const seconds = (Date.now() - new Date(at)) / 1000;
  const [unit, size] = units.find(([, length]) => seconds >= length) ?? [];
  return unit ? ago.format(-Math.floor(seconds / size), unit) : "now";
}

function banner(arrival) {
  const element = document.getElementById("banner").content.firstElementChild.cloneNode(true);
  const title = element.querySelector("a");
  const { notification_id: id, action_url: url } = arrival.data;
  title.textContent = arrival.title;
  if (url && /^\d+$/.test(id)) title.href = new URL(`../api/notifications/${id}/open/`, document.baseURI);
  element.querySelector(".body").textContent = arrival.body;
  element.querySelector("time").dateTime = arrival.at;
  return element;
}

class Phone {
  constructor(element) {
    this.part = (selector) => element.querySelector(selector);
    this.name = `${element.dataset.provider} ${element.dataset.token}`;
    this.banners = new Map();
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
      if (!this.banners.has(each.at)) {
        this.banners.set(each.at, banner(each));
        this.part("ol").prepend(this.banners.get(each.at));
      }
      this.banners.get(each.at).querySelector("time").textContent = when(each.at);
    }
  }
}

const phones = [...section.querySelectorAll(".phone")].map((element) => new Phone(element));

async function look() {
  try {
    const answer = await fetch(theirs, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const arrivals = await answer.json();
    for (const phone of phones) phone.show(arrivals);
  } catch {
    // the service is away; the page's own state says so
  }
}

async function follow() {
  if (!document.hidden) await look();
  setTimeout(follow, EACH);
}

if (phones.length) {
  document.addEventListener("visibilitychange", () => document.hidden || look());
  document.getElementById("clear-phones").addEventListener("click", async () => {
    await fetch(all, { method: "DELETE" });
    await look();
  });
  follow();
}
