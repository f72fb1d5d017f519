// The lock that pages and the service worker take for the browser's notifications.

const NAME = 'tocsin-notifications';
const LONGEST_WAIT = 2000; // milliseconds; a page that is suspended may hold the lock, and a push has to show something

/**
 * Lists or shows notifications while nothing else of this origin does. Chromium deletes from its list a notification that is
 * shown while another call lists them: it stays on the screen, but a click on it does nothing, and no page can close it.
 */
export async function withNotifications<T>(work: () => Promise<T>): Promise<T> {
  const signal = AbortSignal.timeout(LONGEST_WAIT);
  let started = false;
  const run = () => ((started = true), work());
  try {
    return await navigator.locks.request(NAME, { signal }, run);
  } catch (error) {
    if (started) throw error;
    return work();
  }
}
