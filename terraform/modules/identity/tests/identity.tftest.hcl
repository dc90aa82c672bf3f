mock_provider "aws" {
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/geofield" }
  }
}

variables {
  name             = "geofield"
  cluster_name     = "farm"
  cluster_arn      = "arn:aws:eks:eu-central-1:123456789012:cluster/farm"
  namespace        = "geofield"
  service_accounts = ["geofield-runner", "geofield-dask"]
  policy_arns      = { store = "arn:aws:iam::123456789012:policy/fields-writer" }
}

run "pod_identity_is_for_this_cluster_and_these_accounts" {
  assert {
    condition     = toset(keys(aws_eks_pod_identity_association.pods)) == toset(["geofield-runner", "geofield-dask"])
    error_message = "The role is not bound to exactly the accounts asked for."
  }
  assert {
    condition     = jsondecode(aws_iam_role.pods.assume_role_policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == var.cluster_arn
    error_message = "Pods of other clusters can take on the role."
  }
  assert {
    condition     = length(output.service_account_annotations) == 0
    error_message = "Annotations are for irsa."
  }
}

run "irsa_names_each_account" {
  variables {
    mode              = "irsa"
    oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.example/id"
    oidc_issuer       = "https://oidc.example/id"
  }
  assert {
    condition = jsondecode(aws_iam_role.pods.assume_role_policy).Statement[0].Condition.StringEquals["oidc.example/id:sub"] == [
      "system:serviceaccount:geofield:geofield-runner", "system:serviceaccount:geofield:geofield-dask",
    ]
    error_message = "Other accounts can take on the role."
  }
  assert {
    condition     = jsondecode(aws_iam_role.pods.assume_role_policy).Statement[0].Condition.StringEquals["oidc.example/id:aud"] == "sts.amazonaws.com"
    error_message = "Tokens made for others are taken."
  }
  assert {
    condition     = output.service_account_annotations["eks.amazonaws.com/role-arn"] == "arn:aws:iam::123456789012:role/geofield"
    error_message = "The accounts are not told their role."
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.pods) == 0
    error_message = "Both ways at once."
  }
}

run "irsa_without_an_issuer_is_refused" {
  command = plan
  variables {
    mode = "irsa"
  }
  expect_failures = [var.oidc_provider_arn, var.oidc_issuer]
}

run "the_default_account_is_refused" {
  command = plan
  variables {
    service_accounts = ["default"]
  }
  expect_failures = [var.service_accounts]
}
