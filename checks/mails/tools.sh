#!/usr/bin/env bash
# Installs what `make check-mails` asks: Debian's SpamAssassin, Mail::DKIM, Email::MIME and Node, and a linter from npm.
# What is there already is left alone. Whatever can't be had ends it with one line that says so.
set -euo pipefail
cd "$(dirname "$0")"

fail() {
	echo "make check-mails: $1" >&2
	exit 1
}

missing=()
need() { # a Debian package, and a command that succeeds where it is there
	"${@:2}" > /dev/null 2>&1 || missing+=("$1")
}
find_missing() {
	missing=()
	need spamassassin perl -MMail::SpamAssassin -e 1
	need libmail-dkim-perl perl -MMail::DKIM::Verifier -e 1
	need libemail-mime-perl perl -MEmail::MIME -e 1
	need openssl openssl version
	need nodejs node --version
	need npm npm --version
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
	echo "Installing the linter from npm ..."
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || fail "npm can't install package-lock.json"
	cp package-lock.json node_modules/.installed-lock
fi
