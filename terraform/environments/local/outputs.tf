output "s3" {
  description = "The S3 server, inside the cluster."
  value       = local.s3_url
}
