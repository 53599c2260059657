{{/* In front of the names of all objects. */}}
{{- define "requiem.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "requiem.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: requiem
{{- end -}}

{{/* Labels that select the operator's pods. */}}
{{- define "requiem.operator.selector" -}}
app.kubernetes.io/name: requiem-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels that select executor pods: the operator gives them to each. */}}
{{- define "requiem.executor.selector" -}}
app.kubernetes.io/name: requiem-executor
app.kubernetes.io/managed-by: requiem-operator
{{- end -}}

{{/* Reference of an image: (dict "root" $ "name" "operator"). */}}
{{- define "requiem.image" -}}
{{- $image := .root.Values.image -}}
{{- $digest := get $image.digests .name -}}
{{- if $digest -}}
{{- printf "%s/%s@%s" $image.registry .name $digest -}}
{{- else -}}
{{- printf "%s/%s:%s" $image.registry .name (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "requiem.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What every container of ours may do: nothing. */}}
{{- define "requiem.container.security" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{- define "requiem.pod.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "requiem.pool.namespace" -}}
{{- .Values.pool.namespace | default .Values.watchNamespace | default .Release.Namespace -}}
{{- end -}}

{{/* Namespaces with executors that the chart knows of, as a JSON list. */}}
{{- define "requiem.executor.namespaces" -}}
{{- $all := .Values.networkPolicy.executorNamespaces -}}
{{- with .Values.watchNamespace }}{{ $all = append $all . }}{{ end -}}
{{- if .Values.pool.create }}{{ $all = append $all (include "requiem.pool.namespace" .) }}{{ end -}}
{{- $all | uniq | sortAlpha | toJson -}}
{{- end -}}
