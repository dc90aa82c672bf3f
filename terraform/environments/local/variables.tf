variable "kubeconfig" {
  description = "File that says where the cluster is."
  type        = string
  default     = "~/.kube/config"
}

variable "context" {
  description = "Cluster in it. It has to be said, so that nothing is ever put into another one."
  type        = string
  default     = "kind-geofield"
}

variable "image" {
  description = "Image of runner, scheduler and workers."
  type        = string
  default     = "geofield:0.1.0"
}

variable "s3_image" {
  description = "S3 server: that of compose.yaml."
  type        = string
  default     = "versity/versitygw:v1.8.0@sha256:30292fc2eeacc67a36993b01f7a7a5e3361a19cced0e80c1d71cfa2a4b0a2499"
}

variable "monitoring" {
  description = "Prometheus and Grafana too; needs a Secret grafana-admin in the namespace monitoring."
  type        = bool
  default     = false
}
