{{/* Says "yes" when a group is scaled by our own figures. */}}
{{- define "modelplane.autoscaling.on" -}}
{{- if .Values.externalMetrics.enabled -}}
{{- range .Values.autoscaling }}{{ if .enabled }}yes{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Every group with its services, as YAML: those of the value `groups`, and each other service alone. */}}
{{- define "modelplane.autoscaling.members" -}}
{{- $members := deepCopy .Values.groups -}}
{{- $grouped := list "chat_inference" -}}
{{- range .Values.groups }}{{ $grouped = concat $grouped . }}{{ end -}}
{{- range $service, $_ := .Files.Get "services.yaml" | fromYaml -}}
{{- if not (has $service $grouped) -}}
{{- $_ := set $members (replace "_" "-" $service) (list $service) -}}
{{- end -}}
{{- end -}}
{{- toYaml $members -}}
{{- end -}}

{{/* The groups and the Service of each one's pods: that of any of its services, for they all select the same pods. */}}
{{- define "modelplane.autoscaling.groups" -}}
{{- $fullname := include "modelplane.fullname" . -}}
{{- $pairs := list -}}
{{- range $group, $services := include "modelplane.autoscaling.members" . | fromYaml -}}
{{- $pairs = append $pairs (printf "%s=%s-%s" $group $fullname (first $services | replace "_" "-")) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}
