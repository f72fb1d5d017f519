// Gives each bell its token, and the next one from Django when that has expired.
for (const bell of document.querySelectorAll('tocsin-bell[data-token-url]')) {
  let first = bell.getAttribute('token');
  bell.getToken = async () => {
    const given = first;
    first = null;
    if (given) return given;
    const response = await fetch(bell.dataset.tokenUrl, { credentials: 'same-origin' });
    if (!response.ok) return null; // signed out
    return (await response.json()).token;
  };
}
