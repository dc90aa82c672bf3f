output "web" {
  description = "How to see Dagster's pages."
  value       = "kubectl --namespace ${var.namespace} port-forward service/dagster-dagster-webserver 3001:80"
}
