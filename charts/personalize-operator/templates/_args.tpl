{{- define "personalize-operator.args" -}}
- run
- --listen=0.0.0.0:{{ .Values.port }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
- --concurrency={{ .Values.concurrency }}
- --unlisted-namespaces={{ .Values.tenancy.unlisted | lower }}
- --drain-timeout={{ .Values.drainTimeout }}
- --leader-elect={{ .Values.leaderElection.enabled }}
{{- if .Values.leaderElection.enabled }}
- --lease-name={{ include "personalize-operator.fullname" . }}
- --lease-duration={{ .Values.leaderElection.leaseDuration }}
{{- end }}
{{- with .Values.imports }}
- --max-in-flight={{ .maxInFlight }}
- --poll-min={{ .pollMin }}
- --poll-max={{ .pollMax }}
- --grace={{ .grace }}
- --backoff-min={{ .backoffMin }}
- --backoff-max={{ .backoffMax }}
- --rejected-min={{ .rejectedMin }}
- --rejected-max={{ .rejectedMax }}
- --retry-min={{ .retryMin }}
{{- end }}
- --kube-timeout={{ .Values.kubernetes.timeout }}
- --watch-timeout={{ .Values.kubernetes.watchTimeout }}
- --aws-connect-timeout={{ .Values.aws.connectTimeout }}
- --aws-read-timeout={{ .Values.aws.readTimeout }}
- --aws-timeout={{ .Values.aws.timeout }}
{{- with .Values.aws.accounts }}
{{- $pairs := list }}
{{- range $account, $role := . }}
{{- $pairs = append $pairs (printf "%s=%s" $account $role) }}
{{- end }}
- --account-roles={{ join "," $pairs }}
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "personalize-operator.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- with .Values.aws.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.aws.endpointUrl }}
- name: AWS_ENDPOINT_URL_PERSONALIZE
  value: {{ . | quote }}
{{- end }}
{{- with .Values.aws.credentialsSecret }}
{{- if .name }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
