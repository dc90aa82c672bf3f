output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.store.bucket
}

output "store" {
  description = "URL of the store."
  value       = local.prefix == "" ? "s3://${var.bucket}" : "s3://${var.bucket}/${local.prefix}"
}

output "writer_policy_arn" {
  description = "Policy for whoever writes the store."
  value       = aws_iam_policy.writer.arn
}
