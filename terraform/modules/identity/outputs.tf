output "role_arn" {
  description = "ARN of the role."
  value       = aws_iam_role.pods.arn
}

output "service_account_annotations" {
  description = "What the service accounts have to be annotated with; nothing with pod-identity."
  value       = local.is_irsa ? { "eks.amazonaws.com/role-arn" = aws_iam_role.pods.arn } : {}
}
