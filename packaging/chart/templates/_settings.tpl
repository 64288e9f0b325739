{{/* One template per setting of install.sh. packaging/manifests are the source of the other
     templates: ${NAME} there is an include of kube-ovn.NAME here (tests/pure/chart.rs). */}}

{{/* The section of addresses that networking.NET_STACK names. */}}
{{- define "kube-ovn.stack" -}}
{{- $stack := .Values.networking.NET_STACK -}}
{{- if not (has $stack (list "ipv4" "ipv6" "dual_stack")) -}}
{{- fail (printf "networking.NET_STACK=%s: write ipv4, ipv6 or dual_stack" $stack) -}}
{{- end -}}
{{- toJson (index .Values $stack) -}}
{{- end -}}

{{/* Addresses of the masters as JSON. A cluster is asked only when MASTER_NODES is empty. */}}
{{- define "kube-ovn.masters" -}}
{{- $ips := list -}}
{{- range splitList "," (.Values.MASTER_NODES | toString) -}}
{{- if trim . -}}{{- $ips = append $ips (trim .) -}}{{- end -}}
{{- end -}}
{{- if not $ips -}}
{{- $label := splitList "=" .Values.MASTER_NODES_LABEL -}}
{{- range (lookup "v1" "Node" "" "").items -}}
{{- if eq (dig (first $label) "(none)" (.metadata.labels | default dict)) (last $label) -}}
{{- $ip := "" -}}
{{- range .status.addresses -}}
{{- if and (eq .type "InternalIP") (not $ip) -}}{{- $ip = .address -}}{{- end -}}
{{- end -}}
{{- $ips = append $ips $ip -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $ips -}}
{{- fail (printf "MASTER_NODES is empty and no node has the label %s: label the masters, or set MASTER_NODES to their addresses" .Values.MASTER_NODES_LABEL) -}}
{{- end -}}
{{- toJson $ips -}}
{{- end -}}
{{- define "kube-ovn.MASTER_IPS" -}}{{- include "kube-ovn.masters" . | fromJsonArray | join "," -}}{{- end -}}
{{- define "kube-ovn.MASTER_COUNT" -}}{{- include "kube-ovn.masters" . | fromJsonArray | len -}}{{- end -}}
{{- define "kube-ovn.MASTER_SELECTOR" -}}
{{- $label := splitList "=" .Values.MASTER_NODES_LABEL -}}{{ first $label }}: {{ last $label | quote }}
{{- end -}}

{{- define "kube-ovn.VERSION" -}}{{- .Values.global.images.kubeovn.tag | default .Chart.AppVersion -}}{{- end -}}
{{- define "kube-ovn.REGISTRY" -}}{{- .Values.global.registry.address -}}{{- end -}}
{{- define "kube-ovn.IMAGE" -}}
{{- .Values.global.registry.address -}}/{{- .Values.global.images.kubeovn.repository -}}:{{- include "kube-ovn.VERSION" . -}}
{{- end -}}
{{- define "kube-ovn.VPC_NAT_IMAGE" -}}{{- .Values.global.images.kubeovn.vpcRepository -}}{{- end -}}
{{- define "kube-ovn.PROBE_HTTP_SCHEME" -}}{{- ternary "HTTPS" "HTTP" (eq (toString .Values.func.SECURE_SERVING) "true") -}}{{- end -}}
{{- define "kube-ovn.SVC_YAML_IPFAMILYPOLICY" -}}
{{- if eq .Values.networking.NET_STACK "dual_stack" -}}ipFamilyPolicy: PreferDualStack{{- end -}}
{{- end -}}
{{/* Upstream leaves the tunnel NIC to the underlay network when there is one. */}}
{{- define "kube-ovn.IFACE" -}}{{- if ne .Values.networking.NETWORK_TYPE "vlan" -}}{{- .Values.networking.IFACE -}}{{- end -}}{{- end -}}
{{- define "kube-ovn.IMAGE_PULL_POLICY" -}}{{- .Values.image.pullPolicy -}}{{- end -}}
{{- define "kube-ovn.CHECK_GATEWAY" -}}{{- .Values.func.CHECK_GATEWAY | toString -}}{{- end -}}
{{- define "kube-ovn.CNI_BIN_DIR" -}}{{- .Values.cni_conf.CNI_BIN_DIR | toString -}}{{- end -}}
{{- define "kube-ovn.CNI_CONFIG_PRIORITY" -}}{{- .Values.cni_conf.CNI_CONFIG_PRIORITY | toString -}}{{- end -}}
{{- define "kube-ovn.CNI_CONF_DIR" -}}{{- .Values.cni_conf.CNI_CONF_DIR | toString -}}{{- end -}}
{{- define "kube-ovn.DEBUG_WRAPPER" -}}{{- .Values.debug.DEBUG_WRAPPER | toString -}}{{- end -}}
{{- define "kube-ovn.DPDK_TUNNEL_IFACE" -}}{{- .Values.networking.DPDK_TUNNEL_IFACE | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_ANP" -}}{{- .Values.func.ENABLE_ANP | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_ARP_DETECT_IP_CONFLICT" -}}{{- .Values.func.ENABLE_ARP_DETECT_IP_CONFLICT | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_BIND_LOCAL_IP" -}}{{- .Values.func.ENABLE_BIND_LOCAL_IP | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_COMPACT" -}}{{- .Values.networking.ENABLE_COMPACT | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_EIP_SNAT" -}}{{- .Values.networking.ENABLE_EIP_SNAT | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_EXTERNAL_VPC" -}}{{- .Values.func.ENABLE_EXTERNAL_VPC | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_KEEP_VM_IP" -}}{{- .Values.func.ENABLE_KEEP_VM_IP | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_LB" -}}{{- .Values.func.ENABLE_LB | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_LB_SVC" -}}{{- .Values.func.ENABLE_LB_SVC | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_LIVE_MIGRATION_OPTIMIZE" -}}{{- .Values.func.ENABLE_LIVE_MIGRATION_OPTIMIZE | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_METRICS" -}}{{- .Values.networking.ENABLE_METRICS | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_MIRROR" -}}{{- .Values.debug.ENABLE_MIRROR | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_NAT_GW" -}}{{- .Values.func.ENABLE_NAT_GW | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_NP" -}}{{- .Values.func.ENABLE_NP | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_OVN_IPSEC" -}}{{- .Values.func.ENABLE_OVN_IPSEC | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_OVN_LB_PREFER_LOCAL" -}}{{- .Values.func.ENABLE_OVN_LB_PREFER_LOCAL | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_SSL" -}}{{- .Values.networking.ENABLE_SSL | toString -}}{{- end -}}
{{- define "kube-ovn.ENABLE_TPROXY" -}}{{- .Values.func.ENABLE_TPROXY | toString -}}{{- end -}}
{{- define "kube-ovn.EXCHANGE_LINK_NAME" -}}{{- .Values.networking.EXCHANGE_LINK_NAME | toString -}}{{- end -}}
{{- define "kube-ovn.EXCLUDE_IPS" -}}{{- .Values.networking.EXCLUDE_IPS | toString -}}{{- end -}}
{{- define "kube-ovn.GC_INTERVAL" -}}{{- .Values.performance.GC_INTERVAL | int -}}{{- end -}}
{{- define "kube-ovn.HW_OFFLOAD" -}}{{- .Values.func.HW_OFFLOAD | toString -}}{{- end -}}
{{- define "kube-ovn.INSPECT_INTERVAL" -}}{{- .Values.performance.INSPECT_INTERVAL | int -}}{{- end -}}
{{- define "kube-ovn.KUBELET_DIR" -}}{{- .Values.kubelet_conf.KUBELET_DIR | toString -}}{{- end -}}
{{- define "kube-ovn.LOGICAL_GATEWAY" -}}{{- .Values.func.LOGICAL_GATEWAY | toString -}}{{- end -}}
{{- define "kube-ovn.LOG_DIR" -}}{{- .Values.log_conf.LOG_DIR | toString -}}{{- end -}}
{{- define "kube-ovn.LS_CT_SKIP_DST_LPORT_IPS" -}}{{- .Values.func.LS_CT_SKIP_DST_LPORT_IPS | toString -}}{{- end -}}
{{- define "kube-ovn.LS_DNAT_MOD_DL_DST" -}}{{- .Values.func.LS_DNAT_MOD_DL_DST | toString -}}{{- end -}}
{{- define "kube-ovn.MIRROR_IFACE" -}}{{- .Values.debug.MIRROR_IFACE | toString -}}{{- end -}}
{{- define "kube-ovn.NETWORK_TYPE" -}}{{- .Values.networking.NETWORK_TYPE | toString -}}{{- end -}}
{{- define "kube-ovn.NODE_LOCAL_DNS_IP" -}}{{- .Values.networking.NODE_LOCAL_DNS_IP | toString -}}{{- end -}}
{{- define "kube-ovn.OPENVSWITCH_DIR" -}}{{- .Values.OPENVSWITCH_DIR | toString -}}{{- end -}}
{{- define "kube-ovn.OVN_DIR" -}}{{- .Values.OVN_DIR | toString -}}{{- end -}}
{{- define "kube-ovn.OVN_LEADER_PROBE_INTERVAL" -}}{{- .Values.networking.OVN_LEADER_PROBE_INTERVAL | int -}}{{- end -}}
{{- define "kube-ovn.OVN_NORTHD_N_THREADS" -}}{{- .Values.networking.OVN_NORTHD_N_THREADS | int -}}{{- end -}}
{{- define "kube-ovn.OVN_NORTHD_PROBE_INTERVAL" -}}{{- .Values.networking.OVN_NORTHD_PROBE_INTERVAL | int -}}{{- end -}}
{{- define "kube-ovn.OVN_OFCTRL_WAIT_BEFORE_CLEAR" -}}{{- .Values.networking.OVN_OFCTRL_WAIT_BEFORE_CLEAR | int -}}{{- end -}}
{{- define "kube-ovn.OVN_REMOTE_OPENFLOW_INTERVAL" -}}{{- .Values.networking.OVN_REMOTE_OPENFLOW_INTERVAL | int -}}{{- end -}}
{{- define "kube-ovn.OVN_REMOTE_PROBE_INTERVAL" -}}{{- .Values.networking.OVN_REMOTE_PROBE_INTERVAL | int -}}{{- end -}}
{{- define "kube-ovn.OVSDB_CON_TIMEOUT" -}}{{- .Values.func.OVSDB_CON_TIMEOUT | int -}}{{- end -}}
{{- define "kube-ovn.OVSDB_INACTIVITY_TIMEOUT" -}}{{- .Values.func.OVSDB_INACTIVITY_TIMEOUT | int -}}{{- end -}}
{{- define "kube-ovn.OVS_DATAPATH" -}}{{- .Values.networking.OVS_DATAPATH | toString -}}{{- end -}}
{{- define "kube-ovn.OVS_VSCTL_CONCURRENCY" -}}{{- .Values.performance.OVS_VSCTL_CONCURRENCY | int -}}{{- end -}}
{{- define "kube-ovn.POD_NIC_TYPE" -}}{{- .Values.networking.POD_NIC_TYPE | toString -}}{{- end -}}
{{- define "kube-ovn.PROBE_INTERVAL" -}}{{- .Values.networking.PROBE_INTERVAL | int -}}{{- end -}}
{{- define "kube-ovn.SECURE_SERVING" -}}{{- .Values.func.SECURE_SERVING | toString -}}{{- end -}}
{{- define "kube-ovn.SET_VXLAN_TX_OFF" -}}{{- .Values.func.SET_VXLAN_TX_OFF | toString -}}{{- end -}}
{{- define "kube-ovn.TUNNEL_TYPE" -}}{{- .Values.networking.TUNNEL_TYPE | toString -}}{{- end -}}
{{- define "kube-ovn.U2O_INTERCONNECTION" -}}{{- .Values.func.U2O_INTERCONNECTION | toString -}}{{- end -}}
{{- define "kube-ovn.VLAN_ID" -}}{{- .Values.networking.vlan.VLAN_ID | toString -}}{{- end -}}
{{- define "kube-ovn.VLAN_INTERFACE_NAME" -}}{{- .Values.networking.vlan.VLAN_INTERFACE_NAME | toString -}}{{- end -}}
{{- define "kube-ovn.POD_CIDR" -}}{{- (include "kube-ovn.stack" . | fromJson).POD_CIDR -}}{{- end -}}
{{- define "kube-ovn.POD_GATEWAY" -}}{{- (include "kube-ovn.stack" . | fromJson).POD_GATEWAY -}}{{- end -}}
{{- define "kube-ovn.SVC_CIDR" -}}{{- (include "kube-ovn.stack" . | fromJson).SVC_CIDR -}}{{- end -}}
{{- define "kube-ovn.JOIN_CIDR" -}}{{- (include "kube-ovn.stack" . | fromJson).JOIN_CIDR -}}{{- end -}}
{{- define "kube-ovn.PINGER_EXTERNAL_ADDRESS" -}}{{- (include "kube-ovn.stack" . | fromJson).PINGER_EXTERNAL_ADDRESS -}}{{- end -}}
{{- define "kube-ovn.PINGER_EXTERNAL_DOMAIN" -}}{{- (include "kube-ovn.stack" . | fromJson).PINGER_EXTERNAL_DOMAIN -}}{{- end -}}
