#!/usr/bin/env bash
# Installs what the pages are built and checked with: Debian's Node, npm and Chromium, and web/package-lock.json from
# npm. What is there already is left alone. `tools.sh build` leaves out Chromium.
set -euo pipefail
cd "$(dirname "$0")"
purpose=${1:-check}

fail() {
	echo "web/tools.sh: $1" >&2
	exit 1
}

find_missing() {
	missing=()
	node --version > /dev/null 2>&1 || missing+=(nodejs)
	npm --version > /dev/null 2>&1 || missing+=(npm)
	if [ "$purpose" != build ]; then
		command -v chromium chromium-browser google-chrome > /dev/null 2>&1 || missing+=(chromium)
	fi
}

find_missing
if [ ${#missing[@]} -gt 0 ]; then
	command="apt-get install --yes --no-install-recommends ${missing[*]}"
	if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
		fail "${missing[*]} not found; on Debian or Ubuntu, as root: $command"
	fi
	echo "Installing ${missing[*]} ..."
	log=$(mktemp)
	export DEBIAN_FRONTEND=noninteractive
	apt-get update --quiet > "$log" 2>&1 || true # with an older list it may still work
	$command >> "$log" 2>&1 || { tail -n 5 "$log" >&2; fail "failed: $command"; }
	rm -f "$log"
	find_missing
	[ ${#missing[@]} = 0 ] || fail "${missing[*]} installed, but can't be run"
fi

if ! cmp --silent package-lock.json node_modules/.installed-lock; then
	echo "Installing esbuild, TypeScript and axe-core from npm ..."
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || fail "npm can't install package-lock.json"
	cp package-lock.json node_modules/.installed-lock
fi
