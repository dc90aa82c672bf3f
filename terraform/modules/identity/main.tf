# The role that pods take on: by EKS Pod Identity (an agent in the cluster hands out credentials) or by IRSA (the
# cluster's own tokens are trusted). No key that lasts is made, so none can leak.

locals {
  is_irsa = var.mode == "irsa"
  issuer  = local.is_irsa ? trimprefix(var.oidc_issuer, "https://") : ""
  # of the two, one; objects of different forms cannot be the two ends of a condition
  trust = one([for mode, statement in {
    irsa = jsonencode({
      Effect    = "Allow"
      Principal = { Federated = var.oidc_provider_arn }
      Action    = ["sts:AssumeRoleWithWebIdentity"]
      Condition = {
        StringEquals = {
          "${local.issuer}:aud" = "sts.amazonaws.com"
          "${local.issuer}:sub" = [for account in var.service_accounts : "system:serviceaccount:${var.namespace}:${account}"]
        }
      }
    })
    pod-identity = jsonencode({
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = { "aws:SourceAccount" = split(":", var.cluster_arn)[4] }
        ArnEquals    = { "aws:SourceArn" = var.cluster_arn }
      }
    })
  } : jsondecode(statement) if mode == var.mode])
}

resource "aws_iam_role" "pods" {
  name                 = var.name
  description          = "Pods of ${var.namespace} in ${var.cluster_name}"
  max_session_duration = 3600
  assume_role_policy   = jsonencode({ Version = "2012-10-17", Statement = [local.trust] })
  tags                 = var.tags
}

resource "aws_iam_role_policy_attachment" "pods" {
  for_each   = var.policy_arns
  role       = aws_iam_role.pods.name
  policy_arn = each.value
}

resource "aws_eks_pod_identity_association" "pods" {
  for_each        = local.is_irsa ? toset([]) : toset(var.service_accounts)
  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = each.value
  role_arn        = aws_iam_role.pods.arn
  tags            = var.tags
}
