#!/usr/bin/env bash
# Measures a running sandbox (made if there is none) and prints a markdown table.
#   bench.sh            the figures of the README but the largest, about 3 minutes
#   bench.sh --large    with 10,000 ports too, about 5 minutes more
#   bench.sh --policy   policies and Services instead: enforcement by packets, rows and flows of one,
#                       and the engine alone with 10,000 pods (builds a release of tests/pure)
#   bench.sh --quick    the same figures of a few pods: does the bench work?
# Nothing else should run on the machine. How each figure is taken is said in its row;
# tests/bench/measure.rs is the stopwatch for databases and processes.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin:/usr/local/cargo/bin
export SANDBOX_DIR=${SANDBOX_DIR:-/var/lib/kube-ovn-sandbox} SANDBOX_CACHE=${SANDBOX_CACHE:-/var/cache/kube-ovn-sandbox}
KUBECTL=$SANDBOX_CACHE/kubernetes/bin/kubectl
SINGLE=50 BURST=60 PORTS=(2000) EXECS=1000
NS=kube-ovn-bench FAKE=bench-node
SINCE=$(date -u +%FT%TZ)

die() { printf 'bench: %s\n' "$*" >&2; exit 1; }
say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
k() { "$KUBECTL" --kubeconfig "$SANDBOX_DIR/kubeconfig" "$@"; }
system() { k -n kube-system "$@"; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN {printf "%.2f", b - a}'; }
div() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.0f", a / b}'; }
in_fabric() { packaging/sandbox/enter fabric "$@"; }

ROWS=()
row() { ROWS+=("| $1 | $2 | ${3:-} |"); say "$1: $2"; } # FIGURE VALUE [GOAL]

# percentile P: of the numbers on standard input
percentile() { sort -n | awk -v p="$1" '{v[NR] = $1} END {i = int(NR * p / 100 + 0.999999); print v[i < 1 ? 1 : i]}'; }

# --- the cluster

prepare() {
    [ "$(id -u)" = 0 ] || die "needs root (it enters the sandbox)"
    [ -e "$SANDBOX_DIR/kubeconfig" ] || ./install.sh --sandbox >&2
    WORK=$(mktemp -d)
    trap finish EXIT
    rustc -O --edition 2024 -o "$WORK/measure" tests/bench/measure.rs
    mapfile -t NODES < <(k get nodes -l '!kube-ovn/bench' -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}' | sort -V)
    MASTER=$(k get node "${NODES[0]}" -o jsonpath='{.status.addresses[0].address}')
    finish_cluster
    k create namespace $NS >/dev/null
    # An empty account in the namespace is what the API server waits for before it takes pods.
    until k -n $NS get serviceaccount default >/dev/null 2>&1; do sleep 0.2; done
}

finish_cluster() {
    k delete namespace $NS --ignore-not-found >/dev/null 2>&1 || true
    k delete node $FAKE --ignore-not-found >/dev/null 2>&1 || true
    [ "$(system get deployment kube-ovn-controller -o jsonpath='{.spec.replicas}')" != 0 ] || controller 1
}

finish() {
    local rc=$?
    finish_cluster
    rm -rf "$WORK"
    exit $rc
}

# pods COUNT JQ_SPEC: a List of pods p-0, p-1 ... on standard output; $i is the number
pods() { # PREFIX FIRST COUNT SPEC
    jq -n --arg prefix "$1" --argjson first "$2" --argjson n "$3" --arg ns $NS --argjson nodes "$(jq -cn '$ARGS.positional' --args "${NODES[@]}")" \
        '{apiVersion: "v1", kind: "List", items: [range($first; $first + $n) as $i | {apiVersion: "v1", kind: "Pod",
          metadata: {name: "\($prefix)-\($i)", namespace: $ns, labels: {set: $prefix}}, spec: ({terminationGracePeriodSeconds: 0,
          automountServiceAccountToken: false, tolerations: [{operator: "Exists"}], containers: [{name: "idle", image: "kube-ovn-sandbox/test:1",
          imagePullPolicy: "Never", command: ["/bin/sh", "-c", "exec sleep 1000000"]}]} + ('"$4"'))}]}'
}

remove_pods() { # PREFIX
    k -n $NS delete pods -l "set=$1" --grace-period=0 --force --wait=false >/dev/null 2>&1 || true
    until [ -z "$(k -n $NS get pods -l "set=$1" -o name | head -n 1)" ] && [ "$(k get ips -o name | grep -c "/$1-")" = 0 ]; do sleep 1; done
}

metric() { # NAME: of the leading controller; fails while there is none
    in_fabric curl -sf -m 2 "http://$MASTER:10660/metrics" | awk -v name="$1" '$1 == name {printf "%.2f", $2; found = 1} END {exit !found}'
}
settled() { [ "$(metric kube_ovn_settled)" = 1.00 ]; }
controller() { # REPLICAS
    system scale deployment kube-ovn-controller --replicas="$1" >/dev/null
    if [ "$1" = 0 ]; then until [ -z "$(system get pods -l app=kube-ovn-controller -o name)" ]; do sleep 0.2; done
    else until settled 2>/dev/null; do sleep 0.2; done; fi
}

# --- CNI: milliseconds from the plugin's request to the agent's answer, out of the agents' logs

add_times() { # PREFIX
    system logs -l app=kube-ovn-cni -c cni-server --since-time="$SINCE" --tail=-1 | grep -E "command=\"?ADD" | grep "$NS/$1-" | grep -v failed |
        sed -E 's/.*milliseconds=([0-9]+).*/\1/'
}

add_row() { # PREFIX TEXT COUNT GOAL
    local times
    times=$(add_times "$1")
    [ -n "$times" ] || die "no ADD of $1 pods in the agents' logs"
    row "$2 ($(wc -l <<<"$times") requests)" "p50 $(percentile 50 <<<"$times") ms, p99 $(percentile 99 <<<"$times") ms" "$3"
}

# shellcheck disable=SC2016
singles() {
    local i begun
    say "$SINGLE single pods, one after the other"
    for i in $(seq 0 $((SINGLE - 1))); do
        pods single "$i" 1 '{nodeName: $nodes[$i % ($nodes | length)]}' | k apply -f - >/dev/null
        k -n $NS wait --for=condition=Ready "pod/single-$i" --timeout=60s >/dev/null
    done
    add_row single "CNI ADD of single pods, request to result" "< 100 / 250 ms"
    remove_pods single
    begun=$(now)
    pods burst 0 $BURST '{nodeName: $nodes[$i % ($nodes | length)]}' | k apply -f - >/dev/null
    k -n $NS wait --for=condition=Ready pod -l set=burst --timeout=300s >/dev/null
    row "burst of $BURST pods on ${#NODES[@]} nodes: apply to all Ready" "$(since "$begun") s"
    add_row burst "CNI ADD in that burst" ""
    remove_pods burst
}

# --- ports that only the API knows

fake_node() {
    k apply -f - >/dev/null <<YAML
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "$FAKE", "labels": {"kube-ovn/bench": "true"}},
 "spec": {"taints": [{"key": "bench", "effect": "NoSchedule"}]}}
YAML
}

create_api_pods() { # COUNT
    local i step=$((($1 + 3) / 4)) jobs=''
    for i in 0 1 2 3; do
        pods api $((i * step)) $step '{nodeName: "'$FAKE'"}' | k create -f - >/dev/null &
        jobs="$jobs $!"
    done
    for i in $jobs; do wait "$i"; done
}

watch_ports() { # COUNT: starts the stopwatch; its figures come into $WORK/watch
    in_fabric "$WORK/measure" watch "$MASTER:6641" api- "$1" 600 >"$WORK/watch" 2>"$WORK/watching" &
    WATCH=$!
    until grep -q watching "$WORK/watching"; do sleep 0.1; done
}

# compared COUNT SECONDS TRANSACTIONS: the rate, beside plain inserts into the same database in
# transactions of the same size, made right after
compared() {
    local rate raw batch=$(($1 / $3))
    rate=$(div "$1" "$2")
    raw=$(in_fabric "$WORK/measure" raw "$MASTER:6641" "$1" "$batch")
    echo "$rate ports/s in $3 transactions; raw inserts of $batch: $raw/s, so $(div "$((rate * 100))" "$raw") %"
}

# shellcheck disable=SC2016
cpu_seconds() {
    packaging/sandbox/enter "${NODES[0]}" sh -c 'for p in /proc/[0-9]*; do
        case $(tr "\0" " " <$p/cmdline 2>/dev/null) in /kube-ovn/start-controller*) awk "{print (\$14 + \$15) / 100}" $p/stat ;; esac; done'
}

api_ports() { # COUNT
    local n=$1 seconds updates begun ready
    say "$n pods of a node that does not exist, created while no controller runs"
    controller 0
    begun=$(now)
    create_api_pods "$n"
    row "$n API-only pods: rate at which this API server creates them" "$(div "$n" "$(since "$begun")") pods/s"
    watch_ports "$n"
    begun=$(now)
    system scale deployment kube-ovn-controller --replicas=1 >/dev/null
    wait $WATCH
    read -r seconds updates <"$WORK/watch"
    until settled 2>/dev/null; do sleep 0.1; done
    ready=$(since "$begun")
    row "$n API-only pods: first to last port, each with address chosen and IP object recorded" "$(compared "$n" "$seconds" "$updates")" ">= 80 %"
    row "... from the start of the controller to all applied" "$ready s"
    row "... controller then" "$(metric process_resident_memory_bytes | awk '{printf "%.0f", $1 / 1048576}') MB RSS, $(cpu_seconds) CPU-seconds since its start"

    controller 0
    system scale deployment kube-ovn-controller --replicas=1 >/dev/null
    until metric kube_ovn_settled >/dev/null 2>&1; do sleep 0.02; done
    begun=$(now)
    until settled 2>/dev/null; do sleep 0.05; done
    ready=$(since "$begun")
    row "restart with $n pods: first answer of /metrics to in sync" "$ready s, $(metric kube_ovn_operations | cut -d. -f1) NB writes" "< 3 s, 0"

    say "the switch of $n ports is deleted behind the controller's back"
    watch_ports "$n"
    system exec deploy/ovn-central -- ovn-nbctl --no-leader-only ls-del ovn-default
    wait $WATCH
    read -r seconds updates <"$WORK/watch"
    row "$n ports whose records exist: from the deletion of their switch to the last port" "$(compared "$n" "$seconds" "$updates")" ">= 80 %"
    remove_pods api
    until settled 2>/dev/null; do sleep 0.5; done
}

# --- plugin and sizes

plugin() {
    local figures dir=$WORK/plugin
    mkdir "$dir"
    packaging/sandbox/enter "${NODES[0]}" cat /opt/cni/bin/kube-ovn >"$dir/kube-ovn"
    chmod 755 "$dir/kube-ovn"
    printf '{"cniVersion": "1.0.0", "name": "kube-ovn", "type": "kube-ovn", "server_socket": "%s"}' "$dir/socket" >"$dir/conf"
    local command text
    for command in VERSION ADD; do
        text="against a daemon that answers at once"
        [ $command = ADD ] || text="no daemon"
        figures=$(env CNI_COMMAND=$command CNI_CONTAINERID=0123456789abcdef CNI_NETNS=/run/netns/x CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \
            CNI_ARGS='K8S_POD_NAMESPACE=bench;K8S_POD_NAME=bench' "$WORK/measure" spawn $EXECS "$dir/conf" "$dir/socket" "$dir/kube-ovn")
        # shellcheck disable=SC2086
        set -- $figures
        row "plugin $command, $text: spawn to exit ($EXECS runs)" "p50 $1 ms, p99 $2 ms, RSS $(awk -v k="$3" 'BEGIN {printf "%.1f", k / 1024}') MB" "< 3 ms, < 5 MB"
    done
    row "executable" "$(stat -c %s "$dir/kube-ovn" | awk '{printf "%.1f", $1 / 1048576}') MB"
    [ ! -e "$SANDBOX_CACHE/kube-ovn.tar" ] ||
        row "image, compressed" "$(stat -c %s "$SANDBOX_CACHE/kube-ovn.tar" | awk '{printf "%.0f", $1 / 1000000}') MB" "< 150 MB"
}

# --- policies and Services

post() { # PATH: the object on standard input
    curl -sf -X POST -H 'Content-Type: application/json' --data-binary @- "http://127.0.0.1:$PROXY$1" >/dev/null
}

pod_of() { k -n $NS get pod "$1" -o jsonpath='{.status.podIP}'; }

# netns_of MARKER: the process of the pod whose command ends so
netns_of() { pgrep -f "sleep $1\$" | while read -r pid; do [ "$(cat "/proc/$pid/comm")" = sleep ] && echo "$pid"; done | head -n 1; }

deny() { # NAME: nobody reaches the server
    printf '{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "%s"}, "spec": {"podSelector": {"matchLabels": {"set": "server"}}}}' "$1"
}

enforcement() {
    local i begun server pid at times=''
    say "a policy $ENFORCED times: from its creation to the first connection that does not get through"
    server=$(pod_of server-0)
    pid=$(netns_of 1000001)
    nsenter --net="/proc/$pid/ns/net" "$WORK/measure" flips "$server:80" 600 >"$WORK/flips" &
    FLIPS=$!
    until grep -q open "$WORK/flips"; do sleep 0.1; done
    for i in $(seq 1 "$ENFORCED"); do
        begun=$(now)
        deny "p-$i" | post "/apis/networking.k8s.io/v1/namespaces/$NS/networkpolicies"
        until tail -n 1 "$WORK/flips" | grep -q closed; do sleep 0.02; done
        at=$(tail -n 1 "$WORK/flips" | cut -d' ' -f1)
        times="$times$(awk -v a="$begun" -v b="$at" 'BEGIN {printf "%.0f", (b - a) * 1000}')
"
        k -n $NS delete networkpolicy "p-$i" >/dev/null
        until tail -n 1 "$WORK/flips" | grep -q open; do sleep 0.02; done
    done
    kill "$FLIPS"
    times=$(grep . <<<"$times")
    row "NetworkPolicy: creation to enforcement, by packets ($ENFORCED times)" \
        "p50 $(percentile 50 <<<"$times") ms, p99 $(percentile 99 <<<"$times") ms"
}

# Rows of the northbound and of the southbound database, logical flows.
# shellcheck disable=SC2016
rows_now() {
    system exec deploy/ovn-central -- sh -c '
        rows() { ovsdb-client --format=csv --no-headings dump "unix:/var/run/ovn/ovn$1_db.sock" "$2" | grep -cE "^\"?[0-9a-f]{8}-"; }
        echo $(rows nb OVN_Northbound) $(rows sb OVN_Southbound) \
            $(ovn-sbctl --no-leader-only --bare --columns=_uuid list Logical_Flow | grep -c .)'
}

rested() { until settled 2>/dev/null; do sleep 0.2; done; sleep 3; }

# per WHAT COUNT BEFORE AFTER
per() {
    # shellcheck disable=SC2086
    set -- "$1" "$2" $3 $4
    row "$1 (of $2)" "$(awk -v n="$2" -v a="$3" -v b="$6" 'BEGIN {printf "%.1f", (b - a) / n}') NB rows, $(
        awk -v n="$2" -v a="$4" -v b="$7" 'BEGIN {printf "%.1f", (b - a) / n}') SB rows, $(
        awk -v n="$2" -v a="$5" -v b="$8" 'BEGIN {printf "%.1f", (b - a) / n}') logical flows"
}

rows_of_one() {
    local before after n=50
    rested
    before=$(rows_now)
    jq -n --argjson n $n '{apiVersion: "v1", kind: "List", items: [range($n) as $i | {apiVersion: "v1", kind: "Service",
        metadata: {name: "s-\($i)"}, spec: {selector: {set: "server"}, ports: [{port: 80}]}}]}' | k -n $NS apply -f - >/dev/null
    rested
    after=$(rows_now)
    per "one Service of one port and endpoint" $n "$before" "$after"
    k -n $NS delete service --all >/dev/null
    # The first policy brings exemptions for all.
    deny first | k -n $NS apply -f - >/dev/null
    rested
    before=$(rows_now)
    jq -n --argjson n $n '{apiVersion: "v1", kind: "List", items: [range($n) as $i | {apiVersion: "networking.k8s.io/v1", kind: "NetworkPolicy",
        metadata: {name: "r-\($i)"}, spec: {podSelector: {matchLabels: {set: "server"}},
        ingress: [{from: [{podSelector: {matchLabels: {set: "client"}}}], ports: [{port: 80}]}]}}]}' | k -n $NS apply -f - >/dev/null
    rested
    after=$(rows_now)
    per "one NetworkPolicy of one rule and port" $n "$before" "$after"
    k -n $NS delete networkpolicy --all >/dev/null
}

# engine FILTER: tests/pure/scale*.rs print what they measured
engine() {
    cargo test --locked --quiet --release --test pure -- --nocapture --test-threads=1 "$@" 2>/dev/null | sed -nE 's/^(test .*\.\.\. )?([^:]*:? ?.*[^ ]) +([0-9.]+) ms$/\2|\3/p' >"$WORK/engine"
    while IFS='|' read -r what ms; do row "engine alone: $what" "$ms ms"; done <"$WORK/engine"
}

# shellcheck disable=SC2016
policies() {
    pods client 0 1 '{nodeName: $nodes[0], containers: [{name: "idle", image: "kube-ovn-sandbox/test:1", imagePullPolicy: "Never",
        command: ["/bin/sh", "-c", "exec sleep 1000001"]}]}' | k apply -f - >/dev/null
    pods server 0 1 '{nodeName: $nodes[1], containers: [{name: "web", image: "kube-ovn-sandbox/test:1", imagePullPolicy: "Never",
        command: ["/bin/sh", "-c", "exec httpd -f -p 80 -h /www"]}]}' | k apply -f - >/dev/null
    k -n $NS wait --for=condition=Ready pod -l 'set in (client, server)' --timeout=90s >/dev/null
    k proxy --port=0 >"$WORK/proxy" &
    KUBE_PROXY=$!
    until grep -q 127.0.0.1 "$WORK/proxy"; do sleep 0.1; done
    PROXY=$(sed -n 's/.*127.0.0.1:\([0-9]*\).*/\1/p' "$WORK/proxy")
    enforcement
    kill $KUBE_PROXY
    rows_of_one
    remove_pods client
    remove_pods server
    say "the engine alone"
    engine scale_policies:: scale::two_thousand
}

table() {
    local model
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    printf '\nLoad average %s when it began.' "$LOAD"
    printf '\n%s cores (%s), %s GB of memory, Linux %s; Kubernetes %s, userspace datapath, databases, control plane and %s nodes on this one machine.\n\n' \
        "$(nproc)" "${model:-$(uname -m)}" "$(awk '/MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo)" "$(uname -r | cut -d- -f1)" \
        "$(k version -o json | jq -r .serverVersion.gitVersion)" "${#NODES[@]}"
    printf '| Figure | Measured | Goal |\n|---|---|---|\n'
    printf '%s\n' "${ROWS[@]}"
}

LOAD=$(cut -d' ' -f1 /proc/loadavg)
case ${1:-} in
    '') ;;
    --policy)
        ENFORCED=30
        prepare
        policies
        table
        exit
        ;;
    --large) PORTS=(2000 10000) ;;
    --quick) SINGLE=4 BURST=6 PORTS=(100) EXECS=50 ;;
    *) sed -n '2,7s/^# *//p' "$0" >&2; exit 2 ;;
esac
prepare
plugin
singles
fake_node
for count in "${PORTS[@]}"; do api_ports "$count"; done
table
