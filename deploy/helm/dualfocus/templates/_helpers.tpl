{{- /* The name of a service holds no dots, and begins with a letter. */}}
{{- define "dualfocus.name" -}}
{{- $release := replace "." "-" .Release.Name -}}
{{- $name := ternary $release (printf "%s-%s" $release .Chart.Name) (contains .Chart.Name $release) -}}
{{- if regexMatch "^[0-9]" $release -}}
{{- $name = printf "%s-%s" .Chart.Name $release -}}
{{- end -}}
{{ $name | trunc 52 | trimAll "-" }}
{{- end }}

{{- define "dualfocus.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "dualfocus.labels" -}}
{{ include "dualfocus.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* The secret that holds the keys; empty where there are none. */}}
{{- define "dualfocus.keysSecret" -}}
{{- if .Values.keys.existingSecret -}}
{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.values -}}
{{ include "dualfocus.name" . }}-keys
{{- end -}}
{{- end }}

{{- /* The claim that holds the model; empty where it comes from elsewhere. */}}
{{- define "dualfocus.modelClaim" -}}
{{- if .Values.model.volume.existingClaim -}}
{{ .Values.model.volume.existingClaim }}
{{- else if .Values.model.volume.claim.size -}}
{{ include "dualfocus.name" . }}-models
{{- end -}}
{{- end }}

{{- define "dualfocus.flags" -}}
{{- if eq .Values.model.from "volume" }}
- {{ printf "/models/%s" .Values.model.name | quote }}
{{- else if eq .Values.model.from "hub" }}
- {{ .Values.model.name | quote }}
{{- end }}
{{- with .Values.model.servedName }}
- {{ printf "--served-model-name=%s" . | quote }}
{{- end }}
{{- $parallel := .Values.gpu.tensorParallel | default .Values.gpu.count | int }}
{{- if gt $parallel 1 }}
- "--tensor-parallel-size={{ $parallel }}"
{{- end }}
- "--drain-timeout={{ .Values.server.drainTimeout }}"
{{- with .Values.server.host }}
- "--host={{ . }}"
{{- end }}
{{- if include "dualfocus.keysSecret" . }}
- "--api-key-file=/etc/dualfocus/{{ .Values.keys.secretKey }}"
{{- end }}
{{- if .Values.monitoring.serviceMonitor.enabled }}
- "--metrics-open"
{{- end }}
{{- range .Values.server.flags }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Refuses values that are fine one by one and make no sense together. */}}
{{- define "dualfocus.check" -}}
{{- with .Values.model }}
{{- if and (ne .from "shipped") (not .name) }}
{{- fail (printf "model.name is empty: model.from is %s, so name %s" .from (ternary "the model's folder in the volume" "the model on the hub" (eq .from "volume"))) }}
{{- end }}
{{- if and (eq .from "shipped") .name }}
{{- fail (printf "model.name is %s, but model.from is shipped: say where it comes from, volume or hub" .name) }}
{{- end }}
{{- $volumes := compact (list .volume.existingClaim .volume.hostPath .volume.claim.size) }}
{{- if and (eq .from "volume") (ne (len $volumes) 1) }}
{{- fail "model.from is volume: give one of model.volume.existingClaim, model.volume.hostPath and model.volume.claim.size" }}
{{- end }}
{{- end }}
{{- if and .Values.keys.values .Values.keys.existingSecret }}
{{- fail "keys.values and keys.existingSecret: give one of them" }}
{{- end }}
{{- if gt (int .Values.gpu.tensorParallel) (int .Values.gpu.count) }}
{{- fail (printf "gpu.tensorParallel is %v, more than the %v of gpu.count" .Values.gpu.tensorParallel .Values.gpu.count) }}
{{- end }}
{{- if not (or (regexMatch "[1-9]" (toString .Values.rollingUpdate.maxSurge)) (regexMatch "[1-9]" (toString .Values.rollingUpdate.maxUnavailable))) }}
{{- fail "rollingUpdate.maxSurge and rollingUpdate.maxUnavailable are 0: no pod could ever be replaced; give one of them 1" }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas is %v, more than the %v of autoscaling.maxReplicas" .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas) }}
{{- end }}
{{- range .Values.server.flags }}
{{- if regexMatch "^--(host|port|uds|root-path|ssl-|drain-timeout|shutdown-timeout|api-key|config(=|$))" (replace "_" "-" .) }}
{{- fail (printf "server.flags has %s: the chart sets it, or relies on its default (server.drainTimeout, keys, service.port)" .) }}
{{- end }}
{{- end }}
{{- end }}
