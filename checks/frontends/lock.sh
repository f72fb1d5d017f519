#!/usr/bin/env bash
# Writes the package-lock.json of each folder again, with versions and hashes, and without URLs.
set -euo pipefail
cd "$(dirname "$0")"

for folder in astro capacitor next nuxt types; do
	(cd "$folder" && npm install --package-lock-only --ignore-scripts --loglevel=error)
	FOLDER=$folder node --input-type=module <<'END'
import { readFileSync, writeFileSync } from 'node:fs';

const path = `${process.env.FOLDER}/package-lock.json`;
const lock = JSON.parse(readFileSync(path, 'utf8'));
for (const found of Object.values(lock.packages)) delete found.funding;
writeFileSync(path, JSON.stringify(lock, null, 2) + '\n');
END
done
