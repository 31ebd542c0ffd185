{{/* What a restricted namespace asks of a pod and of its containers. */}}
{{- define "modelplane.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- define "modelplane.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* That one of a pod's services which writes down what the database does not have yet, when that is kept on a volume of
the pod's own; else nothing: (dict "root" $ "services" list). */}}
{{- define "modelplane.keeps" -}}
{{- if .root.Values.state.storage }}
{{- if has "billing" .services }}billing{{ else if has "keys" .services }}keys{{ end }}
{{- end }}
{{- end -}}

{{/* Spread over zones and nodes, as far as there are any: (dict "root" $ "component" name). */}}
{{- define "modelplane.spread" -}}
{{- $selector := include "modelplane.selector" . }}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Variables of every process: (dict "root" $ "services" list). Addresses are there of all services, since the commands
that people run in a pod ask them all; who may talk to whom is in the NetworkPolicies. */}}
{{- define "modelplane.environment" -}}
{{- $root := .root }}
{{- $services := .services }}
{{- $fullname := include "modelplane.fullname" $root }}
{{- $secret := include "modelplane.secretName" $root }}
{{- $table := $root.Files.Get "services.yaml" | fromYaml }}
- {name: MODELPLANE_HOME, value: /var/lib/modelplane}
- {name: MODELPLANE_CACHE, value: /var/cache/modelplane}
- {name: MODELPLANE_CONFIG, value: /etc/modelplane/config}
- {name: MODELPLANE_GRACE_S, value: {{ $root.Values.graceSeconds | quote }}}
- {name: MODELPLANE_DRAIN_DELAY_S, value: {{ $root.Values.drainDelaySeconds | quote }}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- {name: MODELPLANE_RPC_LISTEN, value: "0.0.0.0:9000"}
- {name: MODELPLANE_RPC_ADVERTISE, value: "$(POD_IP):9000"}
- {name: MODELPLANE_RPC_HEALTH_LISTEN, value: "0.0.0.0:9001"}
- {name: MODELPLANE_RPC_CONNECTION_AGE_S, value: "30"}
- name: MODELPLANE_RPC_TOKEN
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: rpc-token}}
- {name: MODELPLANE_TELEMETRY_LISTEN, value: "0.0.0.0:9002"}
{{- with $root.Values.otlpEndpoint }}
- {name: MODELPLANE_TELEMETRY_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if ne $root.Values.tls.mode "off" }}
- {name: MODELPLANE_RPC_TLS_FOLDER, value: /etc/modelplane/tls}
{{- end }}
{{- range $service, $row := $table }}
{{- if and $row.listens (ne $service "chat_inference") }}
- {name: MODELPLANE_{{ upper $service }}_ADDRESS, value: "dns:///{{ $fullname }}-{{ replace "_" "-" $service }}:9000"}
{{- end }}
{{- end }}
{{- $state := dict "database" false }}
{{- range $services }}{{ if (index $table .).database }}{{ $_ := set $state "database" true }}{{ end }}{{ end }}
{{- if $state.database }}
- name: MODELPLANE_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: database-url}}
{{- if $root.Values.backup.restore }}
- {name: MODELPLANE_DATABASE_MIGRATE, value: "false"}
{{- end }}
{{- end }}
{{- if or (has "auth" $services) (has "keys" $services) }}
- name: MODELPLANE_AUTH_PEPPER
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: pepper}}
{{- end }}
{{- if has "ratelimit" $services }}
- name: MODELPLANE_VALKEY_URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: valkey-url}}
{{- end }}
{{- if has "gateway" $services }}
- {name: MODELPLANE_HOST, value: "0.0.0.0"}
- {name: MODELPLANE_PORT, value: "8080"}
- {name: MODELPLANE_GATEWAY_TLS, value: {{ ne $root.Values.tls.mode "off" | quote }}}
{{- with $root.Values.edge.addresses }}
- {name: MODELPLANE_GATEWAY_TRUSTED_PROXIES, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- if and (has "xds" $services) $root.Values.edge.enabled }}
- {name: MODELPLANE_XDS_GATEWAY_SERVICE, value: "{{ $root.Release.Namespace }}/{{ $fullname }}-gateway"}
- {name: MODELPLANE_XDS_EDGE_SERVICE, value: "{{ $root.Release.Namespace }}/{{ $fullname }}-envoy"}
- {name: MODELPLANE_XDS_IDLE_S, value: {{ $root.Values.edge.idleSeconds | quote }}}
- {name: MODELPLANE_XDS_EDGE_PORT_NAME, value: {{ ternary "https" "http" $root.Values.edge.tls.enabled }}}
{{- if $root.Values.edge.tls.enabled }}
- {name: MODELPLANE_XDS_CERTIFICATE_FOLDER, value: /etc/modelplane/edge}
- {name: MODELPLANE_XDS_HTTP_PORT, value: "0"}
{{- end }}
{{- if ne $root.Values.tls.mode "off" }}
- {name: MODELPLANE_XDS_INSIDE_CERTIFICATE, value: /etc/envoy/config/inside.yaml}
- {name: MODELPLANE_XDS_INSIDE_AUTHORITY, value: /etc/envoy/config/authority.yaml}
{{- end }}
{{- end }}
{{- if has "pools" $services }}
{{- if eq $root.Values.ray.mode "local" }}
- {name: MODELPLANE_POOLS_REPLICA_HOST, value: "$(POD_IP)"}
{{- else }}
- {name: MODELPLANE_POOLS_RAY_ADDRESS, value: {{ required "ray.address: the Ray cluster's head, host:6379" ($root.Values.ray.address | default (ternary (printf "%s-pools-head-svc:6379" $fullname) "" $root.Values.operator.enabled)) | quote }}}
- {name: MODELPLANE_POOLS_RAY_NAMESPACE, value: "{{ $root.Release.Namespace }}.{{ $fullname }}"}
- {name: MODELPLANE_POOLS_CROWDED_AFTER_MS, value: "300000"}
{{- end }}
{{- end }}
{{- range $name, $value := $root.Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}
