variable "namespace" {
  description = "Namespace of the operator."
  type        = string
  default     = "dask-operator"
}

variable "watched_namespace" {
  description = <<-END
    Namespace in which clusters are made, when it is one only: the operator then gets rights there and nowhere else, and
    has to be in it (namespace = watched_namespace). Null: all namespaces.
  END
  type        = string
  default     = null
  validation {
    condition     = var.watched_namespace == null || var.watched_namespace == var.namespace
    error_message = "The chart makes its Role in the operator's own namespace: set namespace = watched_namespace."
  }
}

variable "chart_version" {
  description = "Version of the chart: the one of dask-kubernetes in requirements-kube.txt."
  type        = string
  default     = "2026.3.0"
}
