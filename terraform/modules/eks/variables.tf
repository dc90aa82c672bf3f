variable "cluster_name" {
  description = "EKS cluster; it exists."
  type        = string
}

variable "region" {
  description = "Region of cluster and bucket: between regions every byte costs."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket to make."
  type        = string
}

variable "prefix" {
  description = "The store lies under this prefix."
  type        = string
  default     = ""
}

variable "kms_key_arn" {
  description = "Key to encrypt with; null for S3's own."
  type        = string
  default     = null
}

variable "noncurrent_days" {
  description = "How long what was deleted can be brought back."
  type        = number
  default     = 30
}

variable "identity_mode" {
  description = "pod-identity or irsa."
  type        = string
  default     = "pod-identity"
}

variable "oidc_provider_arn" {
  description = "With irsa: the cluster's identity provider in IAM."
  type        = string
  default     = null
}

variable "image" {
  description = "Image of runner, scheduler and workers, with a version."
  type        = string
}

variable "mode" {
  description = "cronjob or watch."
  type        = string
  default     = "cronjob"
}

variable "schedule" {
  description = "When it runs: a cron expression."
  type        = string
  default     = "30 6 * * *"
}

variable "timezone" {
  description = "Time zone of the schedule."
  type        = string
  default     = "Etc/UTC"
}

variable "suspend" {
  description = "Stop running, and keep everything."
  type        = bool
  default     = false
}

variable "workers" {
  description = "Dask workers: MIN:MAX."
  type        = string
  default     = "0:10"
}

variable "runner" {
  description = "Size and place of the runner; see module runner."
  type        = any
  default     = {}
}

variable "worker" {
  description = "Size and place of workers; see module runner. With worker_nodes the place is theirs."
  type        = any
  default     = {}
}

variable "secret_names" {
  description = "Secrets, made outside of Terraform, whose keys become variables: addresses of notifications, say."
  type        = list(string)
  default     = []
}

variable "worker_nodes" {
  description = "A group of spot nodes for workers; null: workers go to the nodes there are, or Karpenter makes some."
  type = object({
    role_arn       = string
    subnet_ids     = list(string)
    instance_types = optional(list(string), ["m7i.2xlarge", "m7a.2xlarge", "m6i.2xlarge", "m6a.2xlarge"])
    most           = optional(number, 10)
  })
  default = null
}

variable "monitoring" {
  description = "Prometheus and Grafana; null where the cluster has its own."
  type = object({
    grafana_secret_name = string
    storage_class       = optional(string, "gp3")
    values              = optional(list(string), [])
  })
  default = null
}

variable "dagster" {
  description = "Dagster; null for none."
  type = object({
    image = object({ repository = string, tag = string })
    postgres = object({
      host        = string
      port        = optional(number, 5432)
      username    = optional(string, "dagster")
      database    = optional(string, "dagster")
      secret_name = string
    })
  })
  default = null
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
