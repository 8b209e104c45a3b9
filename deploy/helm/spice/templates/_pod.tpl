{{- define "spice.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "spice.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "spice.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "spice.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "spice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "spice.env" -}}
- name: SPICE_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.postgres.secret }}, key: {{ .Values.postgres.key }}}}
- name: SPICE_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.redis.secret }}, key: {{ .Values.redis.key }}}}
- {name: SPICE_DATA_DIR, value: /var/lib/spice}
- {name: SPICE_ALLOWED_ROOTS, value: "/data,/models"}
{{- with .Values.artifacts.url }}
- {name: SPICE_ARTIFACTS_URL, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "spice.envFrom" -}}
{{- with .Values.artifacts.s3Secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "spice.mounts" -}}
- {name: data, mountPath: /var/lib/spice}
- {name: tmp, mountPath: /tmp}
{{- if .Values.datasets.existingClaim }}
- {name: datasets, mountPath: /data, readOnly: true}
{{- end }}
{{- if .Values.models.existingClaim }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if .Values.artifacts.existingClaim }}
- {name: artifacts, mountPath: /var/lib/spice/artifacts}
{{- end }}
{{- end }}

{{- define "spice.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with .Values.datasets.existingClaim }}
- name: datasets
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- with .Values.models.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- with .Values.artifacts.existingClaim }}
- name: artifacts
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- end }}
