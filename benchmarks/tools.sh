#!/usr/bin/env bash
# Installs the Debian packages that a benchmark's peers are: tools.sh PACKAGE=COMMAND … What is there is left alone.
set -euo pipefail

missing=()
for each in "$@"; do
	command=${each#*=}
	PATH=$PATH:/usr/sbin:/usr/local/sbin type "$command" > /dev/null 2>&1 || [ -e "$command" ] || missing+=("${each%%=*}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
install="apt-get install --yes --no-install-recommends ${missing[*]}"
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
	echo "This benchmark needs ${missing[*]}; on Debian or Ubuntu, as root: $install" >&2
	exit 1
fi
echo "Installing Debian's ${missing[*]} ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# services of theirs must not start by themselves: each benchmark starts its own on its own port
printf '#!/bin/sh\nexit 101\n' > "$log.policy" && chmod +x "$log.policy"
policy=/usr/sbin/policy-rc.d
[ -e "$policy" ] && kept=yes || { kept=no; cp "$log.policy" "$policy"; }
apt-get update --quiet > "$log" 2>&1 || true # with an older list it may still work
$install >> "$log" 2>&1 && ok=yes || ok=no
[ "$kept" = yes ] || rm -f "$policy"
rm -f "$log.policy"
[ "$ok" = yes ] || { tail -n 5 "$log" >&2; echo "failed: $install" >&2; exit 1; }
