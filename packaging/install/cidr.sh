# shellcheck shell=bash
# Addresses and prefixes of both families in plain bash. Sourced, never run.

# bits_of IP: 32 or 128 binary digits; fails when the text is not an address.
bits_of() {
    local ip=$1 part out='' i
    if [[ $ip == *:* ]]; then
        [[ $ip =~ ^[0-9a-fA-F:]+$ && $ip != *:::* && $ip != *::*::* ]] || return 1
        local head=${ip%%::*} tail='' missing=0 h t
        [[ $ip == *::* ]] && tail=${ip##*::} || head=$ip
        IFS=: read -ra h <<<"$head"
        IFS=: read -ra t <<<"$tail"
        missing=$((8 - ${#h[@]} - ${#t[@]}))
        if [[ $ip == *::* ]]; then [ $missing -ge 1 ] || return 1; else [ $missing = 0 ] || return 1; fi
        for ((i = 0; i < missing; i++)); do h+=(0); done
        for part in "${h[@]}" ${t[@]+"${t[@]}"}; do
            [[ $part =~ ^[0-9a-fA-F]{1,4}$ ]] || return 1
            out+=$(binary $((16#$part)) 16)
        done
    else
        local q
        [[ $ip =~ ^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$ ]] || return 1
        IFS=. read -ra q <<<"$ip"
        for part in "${q[@]}"; do
            [[ $part =~ ^(0|[1-9][0-9]{0,2})$ && $part -le 255 ]] || return 1
            out+=$(binary "$part" 8)
        done
    fi
    printf '%s' "$out"
}

binary() { # NUMBER DIGITS
    local n=$1 i out=''
    for ((i = 0; i < $2; i++)); do out=$((n & 1))$out; n=$((n >> 1)); done
    printf '%s' "$out"
}

family_of() { if [[ $1 == *:* ]]; then echo 6; else echo 4; fi; }

# prefix_of CIDR: the binary digits that all its addresses begin with; fails on bad text.
prefix_of() {
    local bits length=${1##*/}
    [[ $1 == */* && $length =~ ^(0|[1-9][0-9]{0,2})$ ]] || return 1
    bits=$(bits_of "${1%/*}") || return 1
    [ "$length" -le ${#bits} ] || return 1
    printf '%s' "${bits:0:length}"
}

# overlap A B: two prefixes (of one family) share addresses. An address is a prefix too.
overlap() {
    local a=$1 b=$2 p q
    [ "$(family_of "$a")" = "$(family_of "$b")" ] || return 1
    [[ $a == */* ]] && p=$(prefix_of "$a") || p=$(bits_of "${a%/*}")
    [[ $b == */* ]] && q=$(prefix_of "$b") || q=$(bits_of "${b%/*}")
    [[ $p == "$q"* || $q == "$p"* ]]
}

# holds CIDRS IP: one prefix of the comma list holds the address.
holds() {
    local cidr
    for cidr in ${1//,/ }; do
        if overlap "$cidr" "$2"; then return 0; fi
    done
    return 1
}
