// The browser's own push: subscribed at the far end of the demo in place of the browser's push service, which needs the
// internet, and another address than this one. What arrives there is shown while this page is open.

const KEPT = "tocsin-demo-subscription";

export class Browser {
  #since = new Date().toISOString();

  constructor() {
    if (!("PushManager" in window)) return;
    PushManager.prototype.getSubscription = async () => kept();
    PushManager.prototype.subscribe = async ({ applicationServerKey }) => {
      const response = await fetch("browser/", { method: "POST" });
      if (!response.ok) throw new Error("There is no far end.");
      localStorage.setItem(KEPT, JSON.stringify({ key: applicationServerKey, json: await response.json() }));
      return kept();
    };
  }

  async show(arrivals) {
    const { endpoint } = kept() ?? {};
    const fresh = arrivals.filter(({ provider, token, at }) => {
      return provider === "web_push" && endpoint?.endsWith(token) && at > this.#since;
    });
    if (fresh.length === 0) return;
    this.#since = fresh[0].at; // the newest
    const [registration] = await navigator.serviceWorker.getRegistrations();
    // the lock of the bell and its service worker, which list notifications
    await navigator.locks.request("tocsin-notifications", async () => {
      for (const { title, body, data, collapse_id: tag } of fresh.toReversed()) {
        await registration?.showNotification(title, { body, data, tag });
      }
    });
  }
}

/** The subscription, as a browser has it. */
function kept() {
  const { key, json } = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
  if (!json) return null;
  const bytes = Uint8Array.from(atob(key.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
  return {
    endpoint: json.endpoint,
    options: { applicationServerKey: bytes.buffer },
    toJSON: () => json,
    unsubscribe: async () => localStorage.removeItem(KEPT) ?? true,
  };
}
