#!/usr/bin/env bash
# Installs the Debian packages that a make target needs: debian.sh PACKAGE=PROOF … Installed ones are not changed.
# The proof is a command, a file, or perl:MODULE. Alternative commands are separated by "|".
set -euo pipefail
PATH=$PATH:/usr/sbin:/usr/local/sbin

is_there() {
	case $1 in
	/*) [ -e "$1" ] ;;
	perl:*) perl "-M${1#perl:}" -e 1 > /dev/null 2>&1 ;;
	*)
		local command
		for command in ${1//|/ }; do
			type "$command" > /dev/null 2>&1 && return
		done
		return 1
		;;
	esac
}

find_missing() {
	missing=()
	local each
	for each in "$@"; do
		is_there "${each#*=}" || missing+=("${each%%=*}")
	done
}

fail() {
	echo "$1" >&2
	exit 1
}

find_missing "$@"
[ ${#missing[@]} -gt 0 ] || exit 0
install="apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends ${missing[*]}"
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
	fail "${missing[*]} not found; on Debian or Ubuntu, as root: $install"
fi
echo "Installing Debian's ${missing[*]} ..."
scratch=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
# their services must not start automatically: a target that needs one starts it on a port of its own
kept=yes
[ -e "$policy" ] || { kept=no; install -m 755 <(printf '#!/bin/sh\nexit 101\n') "$policy"; }
trap '[ "$kept" = yes ] || rm -f "$policy"; rm -rf "$scratch"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet > "$scratch/log" 2>&1 || true # with an older list it may still work
$install >> "$scratch/log" 2>&1 || { tail -n 5 "$scratch/log" >&2; fail "failed: $install"; }
find_missing "$@"
[ ${#missing[@]} = 0 ] || fail "${missing[*]} installed, but can't be run"
