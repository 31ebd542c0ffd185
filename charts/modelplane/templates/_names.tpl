{{/* What everything's name begins with. */}}
{{- define "modelplane.fullname" -}}
{{- if contains "modelplane" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-modelplane" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{/* Labels by which pods are found: (dict "root" $ "component" name). */}}
{{- define "modelplane.selector" -}}
app.kubernetes.io/name: modelplane
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels: (dict "root" $ "component" name). */}}
{{- define "modelplane.labels" -}}
{{ include "modelplane.selector" . }}
app.kubernetes.io/part-of: modelplane
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* The image of the services, and that of the pools and replicas. */}}
{{- define "modelplane.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- define "modelplane.workerImage" -}}
{{ .Values.workerImage.repository }}:{{ .Values.workerImage.tag | default .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The groups with their services, as YAML: those of the value `groups`, and each other service alone. A replica is
started by the pools, and nobody asks xds where there is no edge. */}}
{{- define "modelplane.groups" -}}
{{- $table := .Files.Get "services.yaml" | fromYaml -}}
{{- $groups := deepCopy .Values.groups -}}
{{- $grouped := list "chat_inference" -}}
{{- range $group, $members := .Values.groups }}
{{- range $members }}
{{- if not (hasKey $table .) }}{{ fail (printf "groups.%s: there is no service %s; there are %s" $group . (keys $table | sortAlpha | join ", ")) }}{{ end }}
{{- if has . $grouped }}{{ fail (printf "groups.%s: %s is in another group too, or is no service of the control plane" $group .) }}{{ end }}
{{- $grouped = append $grouped . }}
{{- end }}
{{- end }}
{{- if not .Values.edge.enabled }}{{ $grouped = append $grouped "xds" }}{{ end }}
{{- range $service, $_ := $table }}
{{- if not (has $service $grouped) }}{{ $_ := set $groups (replace "_" "-" $service) (list $service) }}{{ end }}
{{- end }}
{{- toYaml $groups -}}
{{- end -}}

{{/* The group that a service is in: (dict "groups" map "service" name). */}}
{{- define "modelplane.groupOf" -}}
{{- $service := .service -}}
{{- range $group, $members := .groups }}{{ if has $service $members }}{{ $group }}{{ end }}{{ end -}}
{{- end -}}

{{/* The name of the PriorityClass of a kind of pods, or nothing: (dict "root" $ "kind" "hotPath", "control" or "pools"). */}}
{{- define "modelplane.priority" -}}
{{- $name := (index .root.Values.priorityClasses .kind).name -}}
{{- if and .root.Values.priorityClasses.create (not $name) }}{{ $name = printf "%s-%s-%s" .root.Release.Namespace (include "modelplane.fullname" .root) (kebabcase .kind) }}{{ end -}}
{{ $name }}
{{- end -}}

{{/* The secret with the certificate that clients are shown. */}}
{{- define "modelplane.edgeSecret" -}}
{{ .Values.edge.tls.secret | default (printf "%s-edge-tls" (include "modelplane.fullname" .)) }}
{{- end -}}

{{- define "modelplane.secretName" -}}
{{ .Values.secrets.existing | default (printf "%s-secrets" (include "modelplane.fullname" .)) }}
{{- end -}}

{{/* The claim of prepared weights, "" when each pod has a folder of its own. */}}
{{- define "modelplane.cacheClaim" -}}
{{ .Values.cache.claim | default (ternary (printf "%s-cache" (include "modelplane.fullname" .)) "" (not (empty .Values.cache.storage))) }}
{{- end -}}
