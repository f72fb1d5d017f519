#!/usr/bin/env bash
# Installs the packages of a folder's package-lock.json, with Debian's Node and npm, once for each lock: npm.sh FOLDER
set -euo pipefail
"$(dirname "$0")/debian.sh" nodejs=node npm=npm
cd "$1"
cmp --silent package-lock.json node_modules/.installed-lock && exit
echo "Installing $1/package-lock.json from npm ..."
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || { echo "npm can't install $1/package-lock.json" >&2; exit 1; }
cp package-lock.json node_modules/.installed-lock
