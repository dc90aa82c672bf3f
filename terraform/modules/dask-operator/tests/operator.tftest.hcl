mock_provider "helm" {}

run "everywhere_by_default" {
  assert {
    condition     = yamldecode(helm_release.operator.values[0]).kopfArgs == ["--all-namespaces"] && yamldecode(helm_release.operator.values[0]).rbac.cluster
    error_message = "The operator does not watch all namespaces."
  }
  assert {
    condition     = helm_release.operator.version == "2026.3.0"
    error_message = "The chart's version is not pinned."
  }
}

run "rights_in_one_namespace_only" {
  variables {
    namespace         = "geofield"
    watched_namespace = "geofield"
  }
  assert {
    condition     = yamldecode(helm_release.operator.values[0]).kopfArgs == ["--namespace=geofield"] && !yamldecode(helm_release.operator.values[0]).rbac.cluster
    error_message = "The operator has rights in other namespaces."
  }
}

run "the_role_and_the_operator_in_two_namespaces_are_refused" {
  command = plan
  variables {
    watched_namespace = "geofield"
  }
  expect_failures = [var.watched_namespace]
}
