// The chat of the demo's topic: what was posted there, as it was sent.

const list = document.querySelector("#chat ol");
const nothing = document.querySelector("#chat .nothing");

async function show() {
  const response = await fetch("chat/", { headers: { Accept: "application/json" } });
  if (!response.ok) return;
  const posts = await response.json();
  nothing.hidden = posts.length > 0;
  list.replaceChildren(...posts.slice(0, 5).map(item));
}

function item(post) {
  const element = document.createElement("li");
  const text = document.createElement("p");
  text.dir = "auto";
  text.textContent = post.text;
  const note = document.createElement("p");
  note.className = "note";
  const time = new Date(post.at).toLocaleTimeString("en-GB", { timeStyle: "short" });
  note.textContent = `${time}${post.edits ? `, changed ${post.edits}×` : ""}`;
  element.append(text, note);
  return element;
}

if (list) {
  await show();
  setInterval(() => document.hidden || show(), 2000);
}
