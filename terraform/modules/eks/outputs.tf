output "store" {
  description = "URL of the store."
  value       = module.storage.store
}

output "role_arn" {
  description = "Role of the pods."
  value       = module.identity.role_arn
}
