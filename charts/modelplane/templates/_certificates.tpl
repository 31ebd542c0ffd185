{{/* The authority inside, as YAML with `cert` and `key` in base64: the one that is there, else a new one, the same
wherever one rendering asks. */}}
{{- define "modelplane.authorityOf" -}}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (printf "%s-authority" (include "modelplane.fullname" .))).data -}}
{{- if $kept }}
cert: {{ index $kept "tls.crt" }}
key: {{ index $kept "tls.key" }}
{{- else }}
{{- if not (hasKey .Values "madeAuthority") }}
{{- $made := genCA "modelplane.internal" (int .Values.tls.days) }}
{{- $_ := set .Values "madeAuthority" (dict "cert" (b64enc $made.Cert) "key" (b64enc $made.Key)) }}
{{- end }}
cert: {{ .Values.madeAuthority.cert }}
key: {{ .Values.madeAuthority.key }}
{{- end }}
{{- end -}}

{{/* Its certificate in base64. */}}
{{- define "modelplane.authority" -}}
{{ (include "modelplane.authorityOf" . | fromYaml).cert }}
{{- end -}}
