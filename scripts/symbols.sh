#!/bin/sh
# symbols.sh - prove that the libraries export only inm_*, and keep only known state outside their objects
#
# usage: symbols.sh LIBRARY.a LIBRARY.so HEADER
#
# In a plain archive an embedder's function with the name of one of ours silently replaces it. So in both libraries the
# defined global symbols must be exactly the functions the public header declares.

set -eu
LC_ALL=C
export LC_ALL
archive=$1 shared=$2 header=$3
NM=${NM:-nm}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# "inm_fd(" at the start of a name, outside comments.
sed -e 's,/\*.*\*/,,' -e '/\/\*/,/\*\//d' "$header" | grep -o '\binm_[a-z0-9_]*(' | tr -d '(' | sort -u >"$tmp/declared"
$NM -g --defined-only "$archive" | awk 'NF == 3 { print $3 }' | sort -u >"$tmp/archive"
$NM -D --defined-only "$shared" | awk 'NF == 3 && $3 !~ /^INM/ { print $3 }' | sort -u >"$tmp/shared"

# Writable state outside all objects: for the process that of its SIGBUS handler (postcopy/yield.c), for each thread the
# handler's list and the text of inm_last_error. inmigrate(3), "Threads", tells embedders about it.
sort >"$tmp/allowed" <<END
domain_count
domains
former_now
former_spent
formers
installed
last
process_lock
END
$NM -f sysv "$archive" | awk -F'|' '{ gsub(/ /, "") } $7 ~ /^\.t?(bss|data)(\.|$)/ && $7 !~ /rel\.ro/ { print $1 }' |
    sort -u >"$tmp/state"

status=0
# differ WHAT FILE1 FILE2: complain about each line that is only in the first.
only_in() {
    for symbol in $(comm -23 "$2" "$3"); do
        echo "$symbol: $1"
        status=1
    done
}
only_in "exported by $(basename "$archive"), not in $(basename "$header")" "$tmp/archive" "$tmp/declared"
only_in "exported by $(basename "$shared"), not in $(basename "$header")" "$tmp/shared" "$tmp/declared"
only_in "declared, not exported by $(basename "$archive")" "$tmp/declared" "$tmp/archive"
only_in "declared, not exported by $(basename "$shared")" "$tmp/declared" "$tmp/shared"
only_in "state beside the objects of $(basename "$archive"), which inmigrate(3) denies" "$tmp/state" "$tmp/allowed"
only_in "is not in $(basename "$archive") any more" "$tmp/allowed" "$tmp/state"
if [ ! -s "$tmp/declared" ]; then
    echo "no function found in $header"
    status=1
fi
exit $status
