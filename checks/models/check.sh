#!/usr/bin/env bash
# Checks the models of the two protocols by exhaustive search (spin). Each variant that is known to be wrong has to fail.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# check NAME EXPECTED PROPERTY [DEFINE…]: PROPERTY is `safety`, or the name of an LTL formula
check() {
	local name=$1 expected=$2 property=$3 found output
	shift 3
	cd "$folder"
	rm -f pan*
	spin "$@" -a "$here/$name.pml" > spin.log || { cat spin.log; exit 1; }
	if [ "$property" = safety ]; then
		cc -O2 -w -DSAFETY -DCOLLAPSE -DNOCLAIM -DVECTORSZ=4096 -o pan pan.c
		output=$(./pan -m200000 -w24 -E)
	else
		cc -O2 -w -DNFAIR=3 -DCOLLAPSE -DVECTORSZ=4096 -o pan pan.c
		output=$(./pan -a -f -m200000 -w24 -N "$property" 2> /dev/null)
	fi
	if grep -q "max search depth too small\|out of memory\|Search not completed" <<< "$output" && ! grep -q "errors: [1-9]" <<< "$output"; then
		echo "$output"
		exit 1
	fi
	found=holds
	grep -q "errors: 0" <<< "$output" || found=fails
	printf '%-8s %-12s %-28s %s (%s states)\n' "$name" "$property" "${*:-as it is}" "$found" \
		"$(grep -oE '^ *[0-9.e+]+ states, stored' <<< "$output" | grep -oE '[0-9.e+]+' | head -1)"
	if [ "$found" != "$expected" ]; then
		echo "It should be: $expected." >&2
		spin "$@" -t -p "$here/$name.pml" 2> /dev/null | tail -60 >&2 || true
		exit 1
	fi
}

check wake_up holds none_unseen
check wake_up fails none_unseen -DONE_STATEMENT
check wake_up fails none_unseen -DEARLY_RELEASE
check lease holds safety
check lease holds ends
check lease fails safety -DNO_GRACE
check lease fails safety -DNO_NOTE
check lease fails safety -DTIME_LAST
check lease fails ends -DNEVER_ENDED
