output "store" {
  description = "URL of the store."
  value       = module.geofield.store
}
