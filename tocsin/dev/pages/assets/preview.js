// Mail templates: each view of a mail, drawn again when a template's file is saved.

const EACH = 1000;

const byId = (id) => document.getElementById(id);
const view = byId("view");
const root = new URL(view ? "../" : "./", document.baseURI);
let known = view?.dataset.version ?? null; // that of the templates which are shown
let shows = 0;

async function ask(url) {
  const response = await fetch(url, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`Error ${response.status}`);
  return response.json();
}

function filled(name, className, text) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

async function showProblems() {
  const { problems } = await ask(new URL("problems/", root));
  const lines = problems.map((line) => filled("li", "wrong", line));
  byId("problems").replaceChildren(...(lines.length ? lines : [filled("li", "quiet", "None: all mails render.")]));
}

function headerRow([name, value]) {
  const row = document.createElement("tr");
  const head = filled("th", "", name);
  head.scope = "row";
  row.append(head, filled("td", "", value));
  return row;
}

async function showMail() {
  const { scheme, width, locale } = Object.fromEntries(new FormData(view));
  const number = ++shows;
  const shown = await ask(new URL(`?${new URLSearchParams({ locale })}`, document.baseURI));
  if (number !== shows) return; // another view was chosen meanwhile
  byId("problem").hidden = !shown.problem;
  byId("problem").textContent = shown.problem ?? "";
  if (shown.problem) return; // what was there before stays to look at
  byId("subject").textContent = shown.subject;
  byId("text").textContent = shown.text;
  byId("source").textContent = shown.source;
  byId("headers").replaceChildren(...shown.headers.map(headerRow));
  const frame = byId("mail");
  frame.className = width;
  frame.src = new URL(`html/?${new URLSearchParams({ locale, scheme, version: known ?? "" })}`, document.baseURI);
}

const show = view ? showMail : showProblems;

async function look() {
  try {
    const { version } = await ask(new URL("version/", root));
    const changed = known !== null && version !== known;
    const first = known === null;
    known = version;
    if (changed || (first && !view)) await show();
    if (changed && view) byId("state").textContent = `Drawn again at ${new Date().toLocaleTimeString()}.`;
  } catch {
    // the service is unavailable or restarting
  }
}

async function follow() {
  if (!document.hidden) await look();
  setTimeout(follow, EACH);
}

if (view && matchMedia("(max-width: 46rem)").matches) {
  view.elements.width.value = byId("mail").className = "narrow";
}
view?.addEventListener("change", () => show().catch(() => {}));
view?.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => document.hidden || look());
follow();
