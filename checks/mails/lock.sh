#!/usr/bin/env bash
# Writes package-lock.json again, with versions and hashes, and without URLs.
set -euo pipefail
cd "$(dirname "$0")"

npm install --package-lock-only --ignore-scripts --no-audit --no-fund --omit-lockfile-registry-resolved --loglevel=error
node --input-type=module <<'END'
import { readFileSync, writeFileSync } from 'node:fs';

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
for (const found of Object.values(lock.packages)) delete found.funding;
writeFileSync('package-lock.json', JSON.stringify({ ...lock, name: 'check-mails' }, null, 2) + '\n');
END
