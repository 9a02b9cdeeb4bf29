{{- define "millrace.name" -}}
{{- if contains "millrace" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-millrace" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* The labels that select pods. Arguments: root, component, and pool or nothing. */}}
{{- define "millrace.selector" -}}
app.kubernetes.io/name: millrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .pool }}
millrace.dev/pool: {{ . }}
{{- end }}
{{- end }}

{{- define "millrace.labels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "millrace.image" -}}
{{ .root.Values.image.repository }}/millrace-{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* The kind of the broker: redis, rabbitmq or kafka. */}}
{{- define "millrace.brokerKind" -}}
{{- $broker := .Values.broker -}}
{{- if $broker.kind }}{{ $broker.kind }}
{{- else if $broker.url }}{{ include "millrace.kindOfUrl" $broker.url }}
{{- else }}redis{{ end }}
{{- end }}

{{- define "millrace.kindOfUrl" -}}
{{- $scheme := regexFind "^[a-z-]+" . -}}
{{- get (dict "redis" "redis" "rediss" "redis" "redis-sentinel" "redis" "rabbitmq" "rabbitmq" "rabbitmqs" "rabbitmq" "kafka" "kafka") $scheme | default $scheme -}}
{{- end }}

{{- define "millrace.hasBroker" -}}
{{- if or .Values.broker.url .Values.broker.secret }}true{{ end }}
{{- end }}

{{- define "millrace.hasLedger" -}}
{{- if or .Values.ledger.url .Values.ledger.secret }}true{{ end }}
{{- end }}

{{- /* Whether broker or ledger are the chart's own Redis. */}}
{{- define "millrace.ownRedis" -}}
{{- if not (include "millrace.hasBroker" .) }}true
{{- else if and (not (include "millrace.hasLedger" .)) (ne (include "millrace.brokerKind" .) "redis") }}true{{ end }}
{{- end }}

{{- /* A duration such as 1h30m or 250ms, in seconds, rounded up. */}}
{{- define "millrace.seconds" -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" (toString .) -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $factor := get (dict "ms" 1 "s" 1000 "m" 60000 "min" 60000 "h" 3600000 "d" 86400000) $unit -}}
{{- if not $factor }}{{ fail (printf "%q is not a duration such as 5s or 1h30m" .) }}{{ end -}}
{{- $milliseconds = add $milliseconds (mul (int (regexFind "[0-9]+" .)) (int $factor)) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end }}

{{- /* The configuration file of a role: gateway, scaler, or worker of a pool. It has only what the role reads, so a change of
     one pool does not restart the workers of another. It never has a credential: these are in files of Secrets, which it names. */}}
{{- define "millrace.config" -}}
{{- $root := .root -}}
{{- $config := dict "telemetry" $root.Values.telemetry "broker" "${file:/etc/millrace/urls/broker}" -}}
{{- if include "millrace.namesLedger" $root }}{{ $_ := set $config "ledger" "${file:/etc/millrace/urls/ledger}" }}{{ end -}}
{{- $pools := dict -}}
{{- $keys := list "model" -}}
{{- if eq .role "gateway" -}}
{{- $keys = list "model" "jobs" "jobs_from" "results_to" -}}
{{- $gateway := mergeOverwrite (dict "listen" "0.0.0.0:8080" "lame_duck" "5s") $root.Values.gateway.config -}}
{{- if $root.Values.gateway.tls.secret }}{{ $_ := set $gateway "tls" (dict "certificate" "/etc/millrace/tls/tls.crt" "key" "/etc/millrace/tls/tls.key") }}{{ end -}}
{{- $_ := set $config "gateway" $gateway -}}
{{- else if eq .role "scaler" -}}
{{- $keys = list "model" "jobs_from" "results_to" -}}
{{- $scaler := mergeOverwrite (dict "listen" "0.0.0.0:9090") $root.Values.scaler.config -}}
{{- if include "millrace.scalerTls" $root -}}
{{- $tls := dict "certificate" "/etc/millrace/tls/tls.crt" "key" "/etc/millrace/tls/tls.key" -}}
{{- if $root.Values.scaler.tls.clientSecret }}{{ $_ := set $tls "client_ca" "/etc/millrace/tls/ca.crt" }}{{ end -}}
{{- $_ := set $scaler "tls" $tls -}}
{{- end -}}
{{- $_ := set $config "scaler" $scaler -}}
{{- else -}}
{{- $keys = list "model" "device" "threads" "jobs" "jobs_from" "results_to" "worker" -}}
{{- end -}}
{{- $only := .pool -}}
{{- range $name, $pool := $root.Values.pools -}}
{{- if or (not $only) (eq $only $name) -}}
{{- $of := dict -}}
{{- range $key := $keys }}{{ if hasKey $pool $key }}{{ $_ := set $of $key (get $pool $key) }}{{ end }}{{ end -}}
{{- if and (has "device" $keys) $pool.gpu (not (hasKey $pool "device")) }}{{ $_ := set $of "device" "cuda" }}{{ end -}}
{{- $_ := set $pools $name $of -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "pools" $pools -}}
{{- if ne .role "scaler" -}}
{{- $blobs := dict "folder" nil -}}
{{- if not $root.Values.blobs.enabled }}{{ else if $root.Values.blobs.url }}{{ $_ := unset $blobs "folder" }}{{ $_ := set $blobs "url" $root.Values.blobs.url }}{{ else }}{{ $_ := set $blobs "folder" "/var/lib/millrace/blobs" }}{{ end -}}
{{- $_ := set $config "blobs" $blobs -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "millrace.scalerTls" -}}
{{- if or .Values.scaler.tls.secret .Values.scaler.tls.issuer }}true{{ end }}
{{- end }}

{{- define "millrace.scalerTlsSecret" -}}
{{- .Values.scaler.tls.secret | default (printf "%s-scaler-tls" (include "millrace.name" .)) -}}
{{- end }}

{{- /* The files of the URLs of broker and ledger, from Secrets. A changed Secret changes the files of running pods. */}}
{{- define "millrace.urlFiles" -}}
{{- $name := include "millrace.name" . -}}
- secret:
    {{- if .Values.broker.secret }}
    name: {{ .Values.broker.secret.name }}
    items: [{ key: {{ .Values.broker.secret.key | default "url" }}, path: broker }]
    {{- else }}
    name: {{ $name }}-{{ ternary "broker" "redis" (not (empty .Values.broker.url)) }}
    items: [{ key: url, path: broker }]
    {{- end }}
{{- if include "millrace.namesLedger" . }}
- secret:
    {{- if .Values.ledger.secret }}
    name: {{ .Values.ledger.secret.name }}
    items: [{ key: {{ .Values.ledger.secret.key | default "url" }}, path: ledger }]
    {{- else }}
    name: {{ $name }}-{{ ternary "ledger" "redis" (not (empty .Values.ledger.url)) }}
    items: [{ key: url, path: ledger }]
    {{- end }}
{{- end }}
{{- end }}

{{- /* Whether the configuration names a ledger. Redis as the broker is also the ledger. */}}
{{- define "millrace.namesLedger" -}}
{{- if or (include "millrace.hasLedger" .) (ne (include "millrace.brokerKind" .) "redis") }}true{{ end }}
{{- end }}

{{- /* The environment of a role. Argument `blobs`: whether the role uses the blob store. */}}
{{- define "millrace.env" -}}
- name: MILLRACE_CONFIG
  value: /etc/millrace/millrace.yaml
{{- if .blobs }}
{{- range $key, $value := .root.Values.blobs.env }}
- name: {{ $key }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What changes restart a pod: its configuration file and the chart's own Secrets. */}}
{{- define "millrace.checksums" -}}
checksum/config: {{ include "millrace.config" . | sha256sum }}
checksum/urls: {{ printf "%s %s %s" .root.Values.broker.url .root.Values.ledger.url .root.Values.redis.password | sha256sum }}
{{- end }}

{{- define "millrace.mounts" -}}
- { name: config, mountPath: /etc/millrace/millrace.yaml, subPath: millrace.yaml, readOnly: true }
- { name: urls, mountPath: /etc/millrace/urls, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- if .root.Values.broker.filesSecret }}
- { name: broker, mountPath: /etc/millrace/broker, readOnly: true }
{{- end }}
{{- if .root.Values.ledger.filesSecret }}
- { name: ledger, mountPath: /etc/millrace/ledger, readOnly: true }
{{- end }}
{{- if .blobs }}
{{- if and .root.Values.blobs.enabled (not .root.Values.blobs.url) }}
- { name: blobs, mountPath: /var/lib/millrace/blobs }
{{- end }}
{{- if or .root.Values.models.claim .root.Values.models.image }}
- { name: models, mountPath: {{ .root.Values.models.path }}, readOnly: true }
{{- end }}
{{- end }}
{{- end }}

{{- define "millrace.volumes" -}}
- name: config
  configMap: { name: {{ .config }} }
- name: urls
  projected:
    sources:
      {{- include "millrace.urlFiles" .root | nindent 6 }}
- name: tmp
  emptyDir: {}
{{- with .root.Values.broker.filesSecret }}
- name: broker
  secret: { secretName: {{ . }} }
{{- end }}
{{- with .root.Values.ledger.filesSecret }}
- name: ledger
  secret: { secretName: {{ . }} }
{{- end }}
{{- if .blobs }}
{{- if and .root.Values.blobs.enabled (not .root.Values.blobs.url) }}
- name: blobs
  persistentVolumeClaim: { claimName: {{ .root.Values.blobs.claim.name | default (printf "%s-blobs" (include "millrace.name" .root)) }} }
{{- end }}
{{- if .root.Values.models.claim }}
- name: models
  persistentVolumeClaim: { claimName: {{ .root.Values.models.claim }}, readOnly: true }
{{- else if .root.Values.models.image }}
- name: models
  image: { reference: {{ .root.Values.models.image | quote }}, pullPolicy: {{ .root.Values.image.pullPolicy }} }
{{- end }}
{{- end }}
{{- end }}

{{- /* Settings of a pod that all roles share. They fit the Pod Security Standard `restricted`. */}}
{{- define "millrace.pod" -}}
serviceAccountName: {{ include "millrace.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "millrace.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{- define "millrace.spread" -}}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "millrace.selector" . | nindent 6 }}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "millrace.selector" . | nindent 6 }}
{{- end }}
