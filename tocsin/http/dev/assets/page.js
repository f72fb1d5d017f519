// The demo page: the list by REST, the badge by the stream.

const base = new URL("../api/", document.baseURI);
const byId = (id) => document.getElementById(id);
const inbox = byId("inbox");
const items = new Map();
let next = null;

async function call(path, options) {
  const answer = await fetch(new URL(path, base), options);
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const fields = (problem.errors ?? []).map((error) => error.message).join(" ");
    throw new Error(fields || problem.detail || problem.title || `Error ${answer.status}`);
  }
  return answer.status === 204 ? null : answer.json();
}

function say(text) {
  byId("state").textContent = text;
}

function showCount(count) {
  const badge = byId("badge");
  badge.hidden = count === 0;
  badge.textContent = count > 99 ? "99+" : String(count);
  byId("badge-words").textContent = count === 1 ? "1 unread notification" : `${count} unread notifications`;
  document.title = count ? `(${count}) Tocsin demo` : "Tocsin demo";
}

function showRead(item, read) {
  item.read = read;
  item.element.classList.toggle("unread", !read);
  item.element.querySelector(".toggle").textContent = read ? "Mark unread" : "Mark read";
}

function add(notification, place) {
  if (items.has(notification.id)) return;
  const element = byId("item").content.firstElementChild.cloneNode(true);
  const title = element.querySelector(".title");
  title.textContent = notification.title;
  if (notification.action_url) title.href = new URL(`notifications/${notification.id}/open/`, base);
  element.querySelector(".body").textContent = notification.body;
  element.querySelector(".type").textContent = notification.event_type;
  const time = element.querySelector("time");
  time.dateTime = notification.created_at;
  time.textContent = new Date(notification.created_at).toLocaleString();
  const item = { element, read: notification.read };
  items.set(notification.id, item);
  element.querySelector(".toggle").addEventListener("click", () =>
    attempt(async () => {
      const body = JSON.stringify({ read: !item.read });
      const headers = { "Content-Type": "application/json" };
      const now = await call(`notifications/${notification.id}/read/`, { method: "PATCH", body, headers });
      showRead(item, now.read);
    }),
  );
  element.querySelector(".archive").addEventListener("click", () =>
    attempt(async () => {
      await call(`notifications/${notification.id}/`, { method: "DELETE" });
      remove(notification.id);
    }),
  );
  showRead(item, notification.read);
  inbox[place](element);
  byId("empty").hidden = true;
}

function remove(id) {
  items.get(id)?.element.remove();
  items.delete(id);
  byId("empty").hidden = items.size > 0;
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    say(error.message);
  }
}

async function load(url) {
  const page = await call(url);
  for (const notification of page.results) add(notification, "append");
  next = page.next;
  byId("more").hidden = next === null;
  byId("empty").hidden = items.size > 0;
}

async function reload() {
  inbox.replaceChildren();
  items.clear();
  await load("notifications/?limit=20");
}

function follow() {
  const stream = new EventSource(new URL("notifications/stream/", base));
  const on = (name, act) => stream.addEventListener(name, (event) => act(JSON.parse(event.data || "{}")));
  stream.addEventListener("open", () => say("Live"));
  stream.addEventListener("error", () => say("Connecting …"));
  on("badge", ({ count }) => showCount(count));
  on("notification", (notification) => add(notification, "prepend"));
  on("read", ({ ids, read }) => {
    for (const [id, item] of items) if (ids === "all" || ids.includes(id)) showRead(item, read);
  });
  on("archived", ({ ids }) => {
    for (const id of ids === "all" ? [...items.keys()] : ids) remove(id);
  });
  on("resync", () => attempt(reload));
  on("expired", () => {
    stream.close();
    say("Signed out: load the page again.");
  });
}

byId("more").addEventListener("click", () => attempt(() => load(next)));
byId("mark-all").addEventListener("click", () =>
  attempt(async () => {
    const { marked } = await call("notifications/mark-all-read/", { method: "POST" });
    say(marked === 1 ? "1 marked read" : `${marked} marked read`);
  }),
);
byId("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const sent = Object.fromEntries(form);
  sent.recipients = form.getAll("recipients");
  const headers = { "Content-Type": "application/json" };
  try {
    const answer = await call("../dev/events/", { method: "POST", body: JSON.stringify(sent), headers });
    byId("sent").textContent = `Event ${answer.event_id} told to ${answer.notifications}.`;
  } catch (error) {
    byId("sent").textContent = error.message;
  }
});

follow();
attempt(reload);
