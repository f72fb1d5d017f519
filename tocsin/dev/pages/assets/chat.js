// The chat of the demo's topic, as Discord shows it: a title in bold that leads to the thing, and a body.

const list = document.querySelector("#chat ol");
const nothing = document.querySelector("#chat .nothing");

async function show() {
  const response = await fetch("chat/", { headers: { Accept: "application/json" } });
  if (!response.ok) return;
  const posts = await response.json();
  nothing.hidden = posts.length > 0;
  list.replaceChildren(...posts.slice(0, 5).map(item));
}

function plain(text) {
  return text.replace(/\\(.)/g, "$1");
}

function title(head) {
  const [, linked, url, unlinked] = /^\*\*(?:\[(.*)\]\(<([^>]*)>\)|(.*))\*\*$/.exec(head) ?? [];
  const shown = document.createElement("strong");
  if (url === undefined) {
    shown.textContent = plain(unlinked ?? head);
    return shown;
  }
  const link = document.createElement("a");
  link.href = /^https?:/.test(url) ? url : "#";
  link.textContent = plain(linked);
  shown.append(link);
  return shown;
}

function item(post) {
  const element = document.createElement("li");
  const [head, ...body] = post.text.split("\n");
  const text = document.createElement("p");
  text.dir = "auto";
  text.append(title(head), ...body.map((line) => `\n${plain(line)}`));
  const note = document.createElement("p");
  note.className = "note";
  const time = new Date(post.at).toLocaleTimeString("en-GB", { timeStyle: "short" });
  note.textContent = `${time}${post.edits ? `, changed ${post.edits}×` : ""}`;
  element.append(text, note);
  return element;
}

if (list) {
  // the service may be unavailable for a moment
  const look = () => show().catch(() => {});
  await look();
  setInterval(() => document.hidden || look(), 2000);
}
