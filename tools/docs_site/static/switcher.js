// The list of versions, from versions.js beside their folders. It leads to the same page of the other version if it has one.
const select = document.getElementById('versions');
const all = window.TOCSIN_VERSIONS || [];

if (all.length) {
  select.replaceChildren(...all.map(({ name }) => new Option(name, name, false, name === select.dataset.version)));
}

select.addEventListener('change', () => {
  const root = new URL(select.dataset.root, location.href);
  const page = location.href.slice(root.href.length).replace(/[?#].*/, '');
  const { pages } = all.find(({ name }) => name === select.value);
  const there = pages.includes(page.replace(/\.html$/, '')) ? page : 'index.html';
  location.href = new URL(`../${select.value}/${there}`, root);
});
