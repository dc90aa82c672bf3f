variable "region" {
  description = "Region of cluster and bucket."
  type        = string
}

variable "cluster_name" {
  description = "EKS cluster; it exists."
  type        = string
}

variable "bucket" {
  description = "Bucket to make for the store."
  type        = string
}

variable "image" {
  description = "Image of runner, scheduler and workers."
  type        = string
}

variable "worker_nodes" {
  description = "A group of spot nodes for workers; see module eks."
  type        = any
  default     = null
}

variable "monitoring" {
  description = "Prometheus and Grafana; see module eks."
  type        = any
  default     = null
}

variable "dagster" {
  description = "Dagster; see module eks."
  type        = any
  default     = null
}

variable "secret_names" {
  description = "Secrets, made outside of Terraform, whose keys become variables of the pods."
  type        = list(string)
  default     = []
}
