# shellcheck shell=bash
# install.sh --sandbox: cluster, image, installation, and a look at every kind of traffic.
# Sourced, never run.

DEMO=kube-ovn-demo

run_sandbox() {
    [ -d "$HOME_DIR/packaging/sandbox" ] || die "--sandbox needs the source tree; this is a package for real clusters"
    [ "$(id -u)" = 0 ] || die "--sandbox needs root (namespaces, mounts and cgroups are made); run it with sudo"
    export SANDBOX_T0=$T0 SANDBOX_DIR=${SANDBOX_DIR:-/var/lib/kube-ovn-sandbox} SANDBOX_CACHE=${SANDBOX_CACHE:-/var/cache/kube-ovn-sandbox}
    local box=$HOME_DIR/packaging/sandbox image=$SANDBOX_CACHE/kube-ovn.tar network=yes arg
    for arg in ${SANDBOX_ARGS[@]+"${SANDBOX_ARGS[@]}"}; do [ "$arg" != --no-network ] || network=no; done
    "$box/cluster" check ${SANDBOX_ARGS[@]+"${SANDBOX_ARGS[@]}"}
    # An image of the sandbox is never looked for in a registry; its tag says which build it is.
    local binary
    if [ $network = yes ]; then
        say "executable"
        binary=$("$HOME_DIR/packaging/image/binary")
        VERSION=$(auto_VERSION) IMAGE=docker.io/kubeovn/kube-ovn:$(auto_VERSION)-$(sha256sum <"$binary" | cut -c1-12)
        export VERSION IMAGE IMAGE_PULL_POLICY=Never
    fi
    export IFACE=${IFACE:-eth1} KUBECTL_KO_DIR=${KUBECTL_KO_DIR:-$SANDBOX_DIR/bin}
    set_ranges
    # shellcheck disable=SC2034
    GIVEN=$(given_settings)
    read_settings
    if [ $network = no ]; then
        "$box/cluster" up ${SANDBOX_ARGS[@]+"${SANDBOX_ARGS[@]}"}
        return
    fi
    if [ "$(cat "$image.key" 2>/dev/null)" != "$IMAGE $(sha256sum <"$HOME_DIR/packaging/image/links")" ]; then
        say "image"
        "$HOME_DIR/packaging/image/build" "$image" --binary "$binary" --name "$IMAGE"
        echo "$IMAGE $(sha256sum <"$HOME_DIR/packaging/image/links")" >"$image.key"
    fi
    say "cluster"
    "$box/cluster" up ${SANDBOX_ARGS[@]+"${SANDBOX_ARGS[@]}"} --image "$image"
    export KUBECONFIG=$SANDBOX_DIR/kubeconfig KUBECTL=$SANDBOX_CACHE/kubernetes/bin/kubectl
    install_in_cluster
    demonstrate
    next_steps
}

# The sandbox's own range of Services is the cluster's: its v6 half differs from install.sh's.
set_ranges() {
    [ "${DUAL_STACK:-false}" != true ] || SVC_CIDR=${SVC_CIDR:-10.96.0.0/12,fd00:10:96::/112}
    [ "${IPV6:-false}" != true ] || [ -n "${SVC_CIDR:-}" ] || SVC_CIDR=fd00:10:96::/112
    export SVC_CIDR
}

# shellcheck disable=SC2120
demo() { k -n "$DEMO" "$@"; }
from_pod() { demo exec client -- "$@"; }
url() { if [[ $1 == *:* ]]; then echo "http://[$1]/"; else echo "http://$1/"; fi; }

# shows TEXT EXPECTED COMMAND...: the command's output must hold EXPECTED within 30 s.
shows() {
    local text=$1 expected=$2 end output; shift 2
    end=$(($(date +%s) + 30))
    until output=$("$@" 2>&1) && [[ $output == *"$expected"* ]]; do
        if [ "$(date +%s)" -ge "$end" ]; then
            say "FAILED  $text"
            printf '  %s\n  %s\n' "$*" "${output:-(no answer)}" >&2
            FAILED=$((FAILED + 1))
            return
        fi
        sleep 0.5
    done
    say "ok      $text"
}

demo_pods() { # CLIENT_NODE SERVER_NODE
    k create namespace "$DEMO" --dry-run=client -o yaml | k apply -f - >/dev/null
    k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: $DEMO}
spec:
  nodeName: $1
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers: [{name: client, image: kube-ovn-sandbox/test:1, imagePullPolicy: Never, command: [/bin/sh, -c, exec sleep 1000000]}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: $DEMO, labels: {app: server}}
spec:
  nodeName: $2
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers: [{name: server, image: kube-ovn-sandbox/test:1, imagePullPolicy: Never, command: [/bin/sh, -c, "echo hello-from-pod >/www/index.html; exec httpd -f -p 80 -h /www"]}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: $DEMO}
spec: {selector: {app: server}, ports: [{port: 80}], ipFamilyPolicy: PreferDualStack}
YAML
}

# Pod, node, Service, name and outside, in every family, each by a packet that must come back.
demonstrate() {
    local box=$HOME_DIR/packaging/sandbox ip
    local -a nodes
    FAILED=0
    mapfile -t nodes < <(k get nodes -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}')
    say "does it carry traffic? (namespace $DEMO)"
    demo_pods "${nodes[0]}" "${nodes[-1]}"
    demo wait --for=condition=Ready pod --all --timeout=90s >/dev/null ||
        { demo describe pods | tail -n 30 >&2; die "the pods of $DEMO did not start, see above"; }
    for ip in $(demo get pod server -o jsonpath='{.status.podIPs[*].ip}'); do
        shows "pod to pod, ${nodes[0]} to ${nodes[-1]} ($ip)" hello-from-pod from_pod wget -qO- -T 2 "$(url "$ip")"
        shows "node to pod ($ip)" hello-from-pod "$box/enter" "${nodes[0]}" busybox wget -qO- -T 2 "$(url "$ip")"
    done
    for ip in $(k get node "${nodes[-1]}" -o jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}'); do
        shows "pod to node ($ip)" ' 0% packet loss' from_pod ping -c 1 -W 2 "$ip"
    done
    for ip in $(demo get service server -o jsonpath='{.spec.clusterIPs[*]}'); do
        shows "pod to Service ($ip)" hello-from-pod from_pod wget -qO- -T 2 "$(url "$ip")"
    done
    shows "pod to name (server.$DEMO)" hello-from-pod from_pod wget -qO- -T 2 "http://server.$DEMO/"
    for ip in $(outside_addresses); do
        shows "pod to outside ($ip)" outside from_pod wget -qO- -T 2 "$(url "$ip")"
    done
    [ $FAILED = 0 ] || die "$FAILED kinds of traffic do not work, see above; the cluster is left as it is (./cleanup.sh --sandbox removes it)"
}

# The web server in the sandbox's outside world.
outside_addresses() { both 172.31.255.1 fd00:172:31::1 | tr ',' ' '; }

next_steps() {
    cat <<TEXT

The cluster is yours:
  export KUBECONFIG=$SANDBOX_DIR/kubeconfig PATH=$SANDBOX_CACHE/kubernetes/bin:$SANDBOX_DIR/bin:\$PATH
  kubectl get pods -A -o wide
  kubectl get subnets,ips
  kubectl -n $DEMO exec -it client -- sh           # test image: kube-ovn-sandbox/test:1
  packaging/sandbox/enter node1                    # a shell in a node
  kubectl ko status; kubectl ko nbctl show; kubectl ko trace $DEMO/client 1.1.1.1 icmp
After a change of the sources: ./install.sh --sandbox again.
To remove it: ./cleanup.sh --sandbox
TEXT
}
