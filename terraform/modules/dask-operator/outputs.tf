output "version" {
  description = "Version of the operator."
  value       = helm_release.operator.version
}
