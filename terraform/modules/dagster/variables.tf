variable "namespace" {
  description = "Namespace; it exists."
  type        = string
}

variable "chart_version" {
  description = "Version of the charts: the one of dagster in requirements-dagster.txt."
  type        = string
  default     = "1.13.27"
}

variable "image" {
  description = "Image of the code location: the Dockerfile with LOCK=requirements-dagster.txt."
  type = object({
    repository = string
    tag        = string
  })
  validation {
    condition     = var.image.tag != "" && var.image.tag != "latest"
    error_message = "The code location is an image with a version: runs that are under way have to find the same one again."
  }
}

variable "service_account" {
  description = "Service account of the code location and of its runs; it exists."
  type        = string
}

variable "postgres" {
  description = "Where Dagster keeps its records; secret_name: a Secret with the key postgresql-password."
  type = object({
    host        = string
    port        = optional(number, 5432)
    username    = optional(string, "dagster")
    database    = optional(string, "dagster")
    secret_name = string
  })
}

variable "env" {
  description = "Variables of the code location and its runs; no secrets."
  type        = map(string)
  default     = {}
}

variable "secret_names" {
  description = "Secrets whose keys become variables of the code location and its runs."
  type        = list(string)
  default     = []
}

variable "most_runs" {
  description = "Runs at once."
  type        = number
  default     = 10
}
