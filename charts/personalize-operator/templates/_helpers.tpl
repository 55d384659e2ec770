{{- define "personalize-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "personalize-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "personalize-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "personalize-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "personalize-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create=false needs serviceAccount.name: otherwise every pod in the namespace that names no ServiceAccount gets the operator's permissions" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* toYaml quotes strings that look like numbers or booleans: a release may be named 2024. */ -}}
{{- define "personalize-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "personalize-operator.name" . | toYaml }}
app.kubernetes.io/instance: {{ toYaml .Release.Name }}
{{- end }}

{{- /* Labels of the pod of `helm test`: the Service must not select it. */ -}}
{{- define "personalize-operator.testLabels" -}}
app.kubernetes.io/name: {{ include "personalize-operator.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ toYaml .Release.Name }}
{{- end }}

{{- define "personalize-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: personalize-operator
{{- end }}

{{- /* The metadata of a resource. The argument is a dict: root, name, and optionally namespaced, namespace, labels, annotations. */ -}}
{{- define "personalize-operator.metadata" -}}
name: {{ toYaml .name }}
{{- if .namespaced }}
namespace: {{ .namespace | default .root.Release.Namespace | toYaml }}
{{- end }}
{{- $labels := include "personalize-operator.labels" .root | fromYaml }}
{{- /* Selector labels override the user's labels. */}}
{{- $selected := include "personalize-operator.selectorLabels" .root | fromYaml }}
labels:
  {{- mergeOverwrite $labels (.root.Values.commonLabels | default dict) $selected (.labels | default dict) | toYaml | nindent 2 }}
{{- with merge dict (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "personalize-operator.image" -}}
{{- with .Values.image }}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* The operator's permissions in a namespace that it watches. */ -}}
{{- define "personalize-operator.rules" -}}
- apiGroups: [personalize-operator.io]
  resources: [datasetimportjobs]
  verbs: [get, list, watch]
- apiGroups: [personalize-operator.io]
  resources: [datasetimportjobs/status]
  verbs: [update, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{- /* The name of the ConfigMap of accounts; empty if there is none. */ -}}
{{- define "personalize-operator.accountsConfigMap" -}}
{{- with .Values.aws.accountsConfig }}
{{- if .existingConfigMap }}
{{- .existingConfigMap }}
{{- else if or .accounts .defaultTags }}
{{- printf "%s-accounts" (include "personalize-operator.fullname" $ | trunc 54 | trimSuffix "-") }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Non-empty if the operator watches all namespaces. */ -}}
{{- define "personalize-operator.clusterWide" -}}
{{- if not .Values.watchNamespaces }}true{{ end }}
{{- end }}
