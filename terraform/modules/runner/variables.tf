variable "namespace" {
  description = "Namespace of the runner and of the Dask clusters that it makes."
  type        = string
  default     = "geofield"
}

variable "image" {
  description = "Image of runner, scheduler and workers: one for all, with a version."
  type        = string
  validation {
    condition     = can(regex("(@sha256:[0-9a-f]{64}|:[A-Za-z0-9_][A-Za-z0-9_.-]*)$", var.image)) && !endswith(var.image, ":latest")
    error_message = "An image with a version, or better a digest: with `latest`, runner and workers may differ, which a run refuses."
  }
}

variable "mode" {
  description = "cronjob: one run of every tenant when it is time; watch: a process that stays, and serves metrics."
  type        = string
  default     = "cronjob"
  validation {
    condition     = contains(["cronjob", "watch"], var.mode)
    error_message = "mode is cronjob or watch."
  }
}

variable "schedule" {
  description = "When: a cron expression."
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

variable "deadline_s" {
  description = "A run of the CronJob is ended after this; the next one goes on from what was published."
  type        = number
  default     = 6 * 3600
}

variable "tenants" {
  description = "Stores by name."
  type = map(object({
    store        = string
    workers      = optional(string, "0:10")
    until        = optional(string, "yesterday")
    endpoint_url = optional(string)
  }))
  validation {
    condition     = alltrue([for one in values(var.tenants) : startswith(one.store, "s3://")])
    error_message = "A store that several pods use is s3://bucket/prefix."
  }
}

variable "env" {
  description = "Variables of all pods. No secrets: they would be in the state, and for everybody to read in the cluster."
  type        = map(string)
  default     = {}
  validation {
    condition     = length([for name in keys(var.env) : name if can(regex("(?i)secret|password|token|access_key", name))]) == 0
    error_message = "A secret belongs into a Secret that is made outside of Terraform; name it in secret_names."
  }
}

variable "secret_names" {
  description = "Secrets, made outside of Terraform, whose keys become variables of all pods."
  type        = list(string)
  default     = []
}

variable "service_account_annotations" {
  description = "Of both service accounts; see module identity."
  type        = map(string)
  default     = {}
}

variable "runner" {
  description = "Size and place of the runner."
  type = object({
    cpu           = optional(string, "1")
    memory        = optional(string, "4Gi")
    node_selector = optional(map(string), {})
  })
  default = {}
}

variable "worker" {
  description = "Size and place of a worker; spot: nodes that may vanish, of karpenter, eks, gke or aks."
  type = object({
    cpu           = optional(string, "1")
    memory        = optional(string, "4Gi")
    threads       = optional(number, 1)
    node_selector = optional(map(string), {})
    tolerations   = optional(list(map(string)), [])
    spot          = optional(string)
  })
  default = {}
}

variable "scheduler_memory" {
  description = "Memory of a Dask scheduler."
  type        = string
  default     = "2Gi"
}

variable "scheduler_node_selector" {
  description = "Nodes of Dask schedulers: not those that may vanish."
  type        = map(string)
  default     = {}
}

variable "idle_timeout_s" {
  description = "A Dask cluster that did nothing for so long is removed, whoever made it."
  type        = number
  default     = 300
  validation {
    condition     = var.idle_timeout_s >= 10
    error_message = "At least 10 seconds; 0 would leave clusters of dead runs for ever."
  }
}

variable "push_gateway" {
  description = "With mode cronjob: where metrics are pushed to when a run is over."
  type        = string
  default     = null
}

variable "role_rules" {
  description = "What the runner may do in its namespace: make, scale and remove Dask clusters, and see why a pod is pending."
  type = list(object({
    api_groups = list(string)
    resources  = list(string)
    verbs      = list(string)
  }))
  # those of k8s/base/rbac.yaml; a test compares them
  default = [
    { api_groups = ["kubernetes.dask.org"], resources = ["daskclusters"], verbs = ["get", "list", "create", "patch", "delete"] },
    { api_groups = ["kubernetes.dask.org"], resources = ["daskworkergroups"], verbs = ["list"] },
    { api_groups = ["kubernetes.dask.org"], resources = ["daskautoscalers"], verbs = ["create", "patch"] },
    { api_groups = [""], resources = ["pods"], verbs = ["get", "list"] },
    { api_groups = [""], resources = ["pods/log"], verbs = ["get"] },
    { api_groups = [""], resources = ["services"], verbs = ["get", "list"] },
    { api_groups = ["apps"], resources = ["deployments"], verbs = ["list"] },
  ]
}
