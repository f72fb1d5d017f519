// One person's window: the host app with its bell, its pages, and its notification settings.

const TOPICS = { "forum.thread:7": "Spring Formal Planning" };

export class Panel {
  constructor(element) {
    const { side, person, name, other, email } = element.dataset;
    Object.assign(this, { element, side, person, name, other, email });
    this.onact = this.onnotification = () => {};
    this.bell = element.querySelector("tocsin-bell");
    this.bell.getToken = () => this.token();
    this.bell.addEventListener("tocsin:open", (event) => {
      event.preventDefault();
      this.bell.hide();
      this.open(event.detail);
    });
    this.counted = new Promise((resolve) => this.bell.addEventListener("tocsin:count", resolve, { once: true }));
    this.bell.addEventListener("tocsin:count", ({ detail }) => this.onnotification(detail.count));
    for (const button of element.querySelectorAll(".act")) {
      const words = button.firstChild.textContent.trim();
      button.addEventListener("click", () => this.onact(button.dataset.eventType, words));
    }
    element.querySelector(".who").addEventListener("change", ({ target }) => this.seat(target.value));
    addEventListener("hashchange", () => this.go(location.hash));
    this.go(location.hash);
  }

  /** As the app's own session would make it. */
  async token() {
    const response = await fetch(`token/?person=${encodeURIComponent(this.person)}`);
    return response.ok ? (await response.json()).token : null;
  }

  /** Shows the window of another person. */
  seat(person) {
    const people = { [this.side]: person, [this.side === "left" ? "right" : "left"]: this.other };
    location.search = new URLSearchParams(people);
  }

  go(hash) {
    const [side, view] = hash.slice(1).split("/");
    if (side !== this.side) return;
    if (view === "settings") this.settings();
    else this.show("home", "/");
  }

  settings() {
    const view = this.view("settings");
    if (!view.firstChild) {
      const preferences = document.createElement("tocsin-preferences");
      preferences.getToken = () => this.token();
      preferences.describeTopic = (topic) => (TOPICS[topic] ? { label: TOPICS[topic] } : null);
      const alone = document.createElement("a");
      alone.href = `sign-in/?person=${encodeURIComponent(this.person)}`;
      alone.textContent = "On a page of its own";
      const line = document.createElement("p");
      line.append(alone);
      view.append(preferences, line);
    }
    this.show("settings", "/settings");
    this.bell.hide?.(); // it may be loading still
  }

  /** From the phone: what is read there is read everywhere. */
  async openById(id) {
    const notification = await this.call("PATCH", `notifications/${id}/read/`);
    if (notification) await this.open(notification);
  }

  /** From the phone: presses a button, and returns in words what counts now. */
  async press(id, key) {
    const pressed = await this.call("POST", `notifications/${id}/actions/${key}/`);
    const { acted, actions } = pressed ?? (await this.call("GET", `notifications/${id}/`)) ?? {};
    const chosen = actions?.find((action) => action.key === acted?.key);
    return chosen ? `You chose “${chosen.label}”.` : "There is nothing left to choose.";
  }

  /** Where a notification leads: its page, and why it came. */
  async open(notification) {
    const view = this.view("opened");
    view.querySelector("h3").textContent = notification.title;
    view.querySelector(".from").textContent = notification.event_type;
    view.querySelector(".text").textContent = notification.body;
    const why = view.querySelector(".why");
    this.opened = notification.id;
    why.replaceChildren();
    this.show("opened", notification.action_url ?? "/");
    view.querySelector("h3").focus();
    const { channels } = (await this.call("GET", `notifications/${notification.id}/why/`)) ?? { channels: [] };
    if (this.opened !== notification.id) return; // another was opened meanwhile
    why.replaceChildren(
      ...channels.map(({ sentence }) => Object.assign(document.createElement("li"), { textContent: sentence })),
    );
  }

  /** Tocsin's API as this person; null where it refuses. */
  async call(method, path) {
    const headers = { Authorization: `Bearer ${await this.token()}` };
    const response = await fetch(`../api/${path}`, { method, headers });
    return response.ok ? response.json() : null;
  }

  show(name, path) {
    for (const view of this.element.querySelectorAll(".view")) view.hidden = view.dataset.view !== name;
    for (const link of this.element.querySelectorAll("nav a")) {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.element.querySelector(".path").textContent = path;
    // the way back from a page that was opened is a change of the address, too
    if (name === "opened") history.replaceState(null, "", `#${this.side}/opened`);
  }

  view(name) {
    return this.element.querySelector(`.view[data-view="${name}"]`);
  }
}
