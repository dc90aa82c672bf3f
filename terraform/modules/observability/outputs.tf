output "push_gateway" {
  description = "Where a CronJob pushes its metrics to; null without a push gateway."
  value       = var.push_gateway ? "http://push-gateway.${var.namespace}.svc:9091" : null
}
