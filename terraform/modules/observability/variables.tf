variable "namespace" {
  description = "Namespace of Prometheus and Grafana."
  type        = string
  default     = "monitoring"
}

variable "watched_namespace" {
  description = "Namespace of the runner."
  type        = string
}

variable "chart_version" {
  description = "Version of the chart kube-prometheus-stack."
  type        = string
  default     = "91.9.0"
}

variable "push_gateway" {
  description = "A push gateway, for a runner that is a CronJob."
  type        = bool
  default     = false
}

variable "push_gateway_chart_version" {
  description = "Version of the chart prometheus-pushgateway."
  type        = string
  default     = "3.4.1"
}

variable "grafana_secret_name" {
  description = "Secret with the keys admin-user and admin-password; it exists."
  type        = string
}

variable "retention" {
  description = "How long measurements are kept."
  type        = string
  default     = "30d"
}

variable "storage_class" {
  description = "Class of Prometheus's volume; null: measurements are lost with the pod."
  type        = string
  default     = null
}

variable "storage_size" {
  description = "Size of Prometheus's volume."
  type        = string
  default     = "20Gi"
}

variable "values" {
  description = "More values of the chart, as YAML: where alerts go, for instance."
  type        = list(string)
  default     = []
}
