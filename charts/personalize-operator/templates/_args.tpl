{{- define "personalize-operator.args" -}}
- run
- --listen=0.0.0.0:{{ .Values.port }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
- {{ printf "--log-level=%s" .Values.log.level | quote }}
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
- --queue-order={{ .queueOrder }}
- --preflight={{ .preflight | default "off" }}
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
- --aws-calls-per-second={{ .Values.aws.callsPerSecond }}
{{- with .Values.aws.accounts }}
{{- $pairs := list }}
{{- range $account, $role := . }}
{{- $pairs = append $pairs (printf "%s=%s" $account $role) }}
{{- end }}
- {{ printf "--account-roles=%s" (join "," $pairs) | quote }}
{{- end }}
{{- with include "personalize-operator.accountsConfigMap" . }}
- {{ printf "--accounts-config-map=%s" . | quote }}
{{- end }}
{{- with .Values.extraArgs }}
{{- range . }}
{{- $flag := regexFind "^[a-z-]+" (trimPrefix "--" .) }}
{{- with get (include "personalize-operator.bound" $ | fromYaml) $flag }}
{{- fail (printf "extraArgs can't hold --%s: %s" $flag .) }}
{{- end }}
{{- end }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Flags that other resources of the release depend on, and what to do instead. For any other flag, the last one wins. */ -}}
{{- define "personalize-operator.bound" -}}
accounts-config-map: the Role allows only one ConfigMap; set aws.accountsConfig.existingConfigMap
identity: each pod uses its own name; with a fixed one, two replicas lead at once
lease-name: the Role allows only the Lease with the name of the release; set fullnameOverride
lease-namespace: the Role allows only a Lease in the namespace of the release
leader-elect: set leaderElection.enabled
listen: set port
unlisted-namespaces: set tenancy.unlisted
watch-namespaces: set watchNamespaces
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
      name: {{ toYaml .name }}
      key: {{ toYaml .accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ toYaml .name }}
      key: {{ toYaml .secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
