output "namespace" {
  description = "Namespace of the runner."
  value       = kubernetes_namespace_v1.geofield.metadata[0].name
}

output "service_accounts" {
  description = "Service accounts whose pods use the store."
  value       = [kubernetes_service_account_v1.runner.metadata[0].name, kubernetes_service_account_v1.dask.metadata[0].name]
}
