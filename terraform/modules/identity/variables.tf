variable "name" {
  description = "Name of the role."
  type        = string
}

variable "mode" {
  description = "How pods get the role: pod-identity or irsa."
  type        = string
  default     = "pod-identity"
  validation {
    condition     = contains(["pod-identity", "irsa"], var.mode)
    error_message = "mode is pod-identity or irsa."
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "cluster_arn" {
  description = "ARN of the EKS cluster; only its pods get the role."
  type        = string
}

variable "namespace" {
  description = "Namespace of the pods."
  type        = string
}

variable "service_accounts" {
  description = "Service accounts whose pods get the role."
  type        = list(string)
  validation {
    condition     = length(var.service_accounts) > 0 && !contains(var.service_accounts, "default") && !strcontains(join("", var.service_accounts), "*")
    error_message = "Name the service accounts; neither `default` nor a pattern, which any pod could use."
  }
}

variable "policy_arns" {
  description = "Policies of the role, by a name of your own."
  type        = map(string)
}

variable "oidc_provider_arn" {
  description = "With irsa: ARN of the cluster's identity provider in IAM."
  type        = string
  default     = null
  validation {
    condition     = var.mode != "irsa" || var.oidc_provider_arn != null
    error_message = "irsa needs oidc_provider_arn."
  }
}

variable "oidc_issuer" {
  description = "With irsa: the cluster's issuer, https://..."
  type        = string
  default     = null
  validation {
    condition     = var.mode != "irsa" || startswith(coalesce(var.oidc_issuer, "-"), "https://")
    error_message = "irsa needs oidc_issuer, an https address."
  }
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
