variable "bucket" {
  description = "Name of the bucket."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket is named by 3 to 63 small letters, digits and dashes (dots would break certificates)."
  }
}

variable "prefix" {
  description = "The store lies under this prefix; empty for the whole bucket."
  type        = string
  default     = ""
}

variable "kms_key_arn" {
  description = "Key of the key service to encrypt with; null for S3's own."
  type        = string
  default     = null
}

variable "noncurrent_days" {
  description = "How long what was deleted can be brought back."
  type        = number
  default     = 30
  validation {
    condition     = var.noncurrent_days >= 7
    error_message = "At least 7 days: a mistake made on a Friday is seen on a Monday."
  }
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
