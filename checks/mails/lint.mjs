// Finds with caniemail which features of each file a client does not support; prints JSON: [{file, client, feature, notes}].
import { readFileSync } from 'node:fs';
import { caniemail } from 'caniemail';

const [clients, ...files] = process.argv.slice(2);
const found = files.flatMap((file) => {
  const { issues } = caniemail({ clients: clients.split(','), html: readFileSync(file, 'utf8') });
  return [...issues.errors].flatMap(([client, missing]) =>
    missing.map(({ title, notes }) => ({ file, client, feature: title, notes })),
  );
});
console.log(JSON.stringify(found));
