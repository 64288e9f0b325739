#!/usr/bin/env bash
# Runs the tests and ends with one line, `N passed, N failed, N skipped`.
#   run.sh [pure|system|guest|e2e]...    (default: pure, system with guest, e2e)
# pure      formatting, lints, scripts, pure tests; needs Rust only
# system    real ovsdb-server, ovn-northd and kernel; needs root, builds Debian's OVN once
# guest     the part of system that runs on Debian's own kernel, in an emulated machine (qemu)
# e2e       the sandbox cluster; needs root and about 4 GB of memory
# SKIP="NAME..." skips tiers or single tests by name; whatever is skipped is counted. A test that
# cannot run fails. What is missing on the machine is installed (Debian packages) or built (cache
# in SANDBOX_CACHE, /var/cache/kube-ovn-sandbox).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
PATH=$PATH:$HOME/.cargo/bin:/usr/local/cargo/bin
export SANDBOX_CACHE=${SANDBOX_CACHE:-/var/cache/kube-ovn-sandbox} SKIP=${SKIP:-}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target} CARGO_TERM_COLOR=never
PASSED=0 FAILED=0 SKIPPED=0
FAILURES=() UNSTEADY=()
T0=$(date +%s)

say() { printf '\n[%4ds] == %s\n' "$(($(date +%s) - T0))" "$*"; }
fail() { FAILED=$((FAILED + 1)); FAILURES+=("$1"); printf 'FAILED: %s\n' "$1"; }
skipped() { [[ " $SKIP " == *" $1 "* ]]; }
skip() { SKIPPED=$((SKIPPED + 1)); printf 'skipped: %s (SKIP)\n' "$1"; }

# one NAME COMMAND...: the command is one test.
one() {
    local name=$1; shift
    if skipped "$name"; then skip "$name"; return; fi
    say "$name"
    if "$@"; then PASSED=$((PASSED + 1)); else fail "$name"; fi
}

# rust TARGET [ARGS...]: a test binary of the crate; its own counts are added. A test that is named
# in SKIP is left out by the harness, and counted by the difference of two lists.
rust() {
    local target=$1 log name rc passed failed ignored all=0 asked=0; shift
    local -a filters=() list=(cargo test --locked --quiet --test "$target" -- --list "$@")
    for name in $SKIP; do
        case $name in pure | system | guest | e2e) ;; *) filters+=(--skip "$name") ;; esac
    done
    say "cargo test --test $target $*"
    log=$(mktemp)
    cargo test --locked --test "$target" -- "$@" ${filters[@]+"${filters[@]}"} 2>&1 | tee "$log"
    rc=$?
    if [ ${#filters[@]} -gt 0 ]; then
        all=$("${list[@]}" 2>/dev/null | grep -c ': test$')
        asked=$("${list[@]}" "${filters[@]}" 2>/dev/null | grep -c ': test$')
    fi
    read -r passed failed ignored < <(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored; .*/\1 \2 \3/p' "$log" |
        awk '{p += $1; f += $2; i += $3} END {print p + 0, f + 0, i + 0}')
    PASSED=$((PASSED + passed)) SKIPPED=$((SKIPPED + ignored + all - asked))
    if [ "$failed" -gt 0 ]; then
        while read -r name; do
            if [ "$failed" -le 4 ] && again "$target" "$name"; then continue; fi
            FAILED=$((FAILED + 1)) FAILURES+=("$target $name")
        done < <(sed -nE '/^failures:$/,/^test result/s/^    ([^ ]+)$/\1/p' "$log" | sort -u)
    elif [ $rc != 0 ]; then
        fail "$target: did not build or ended early"
    fi
    rm -f "$log"
}

# again TARGET NAME: a test on real servers that failed beside others gets one more run alone. It is
# named in the summary: a test that needs this is to be mended.
again() {
    [ "$1" != pure ] || return 1
    say "once more, alone: $2"
    cargo test --locked --test "$1" -- --exact "$2" </dev/null || return 1
    PASSED=$((PASSED + 1)) UNSTEADY+=("$1 $2")
}

has_test() { grep -q "^name = \"$1\"" <(sed -n '/^\[\[test\]\]/,/^$/p' Cargo.toml); }

need_rust() {
    command -v cargo >/dev/null && return
    fail "cargo is not in PATH: install Rust (https://rustup.rs)"
    return 1
}

# Debian packages for the tests themselves; the sandbox installs its own.
need_packages() { # PROGRAM:PACKAGE...
    local pair missing=
    for pair; do command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"; done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "install on this host:$missing"
        return 1
    fi
    # shellcheck disable=SC2086
    { apt-get install -y --no-install-recommends $missing || { apt-get update && apt-get install -y --no-install-recommends $missing; }; } \
        </dev/null >/dev/null 2>&1 || { fail "cannot install:$missing"; return 1; }
}

scripts() {
    local file
    local -a files=()
    while IFS= read -r file; do
        case $(head -c 64 "$file" | head -n 1) in '#!'*sh* | '# shellcheck shell='*) files+=("$file") ;; esac
    done < <(git ls-files 2>/dev/null || find install.sh cleanup.sh packaging tests .ci -type f)
    shellcheck -x -P SCRIPTDIR "${files[@]}"
}

pure() {
    need_rust || return
    need_packages gcc:gcc shellcheck:shellcheck || return
    one fmt cargo fmt --check
    one clippy cargo clippy --locked --quiet --all-targets -- -D warnings
    one shellcheck scripts
    rust pure
}

need_root() { [ "$(id -u)" = 0 ] || { fail "$1: needs root (SKIP=$1 leaves it out)"; return 1; }; }

system() {
    need_root system || return
    need_rust || return
    if ! packaging/sandbox/rootfs tools; then fail "system: no OVN and OVS, see above"; return; fi
    if ! has_test system; then skip "system (no such tests yet)"; return; fi
    rust system --test-threads=4 --skip in_guest::
    if skipped guest; then skip guest; else rust system --test-threads=1 in_guest::; fi
}

guest() {
    need_root guest || return
    need_rust || return
    if ! packaging/sandbox/rootfs tools; then fail "guest: no OVN and OVS, see above"; return; fi
    rust system --test-threads=1 in_guest::
}

e2e() {
    need_root e2e || return
    need_rust || return
    local kb
    kb=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)
    [ "$kb" -gt 3500000 ] || { fail "e2e: $((kb / 1024)) MB of memory available, 3500 are needed (SKIP=e2e leaves it out)"; return; }
    # Its own folder: a sandbox that somebody works with stays as it is.
    export SANDBOX_DIR=${SANDBOX_DIR:-/var/lib/kube-ovn-sandbox-e2e}
    one sandbox-install ./install.sh --sandbox
    rust e2e --test-threads=1 --skip masters::
    one sandbox-cleanup ./cleanup.sh --sandbox
    # It makes a cluster of its own: one at a time, so that 4 GB of memory are enough.
    rust e2e --test-threads=1 masters::
}

[ $# -gt 0 ] || set -- pure system e2e
for tier; do
    case $tier in
        pure | system | guest | e2e) if skipped "$tier"; then skip "$tier"; else "$tier"; fi ;;
        *) echo "usage: run.sh [pure|system|guest|e2e]..." >&2; exit 2 ;;
    esac
done

say "summary after $(($(date +%s) - T0)) s"
for name in ${UNSTEADY[@]+"${UNSTEADY[@]}"}; do echo "  unsteady, passed at the second run: $name"; done
for failure in ${FAILURES[@]+"${FAILURES[@]}"}; do echo "  failed: $failure"; done
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ $FAILED = 0 ]
