mock_provider "helm" {}

variables {
  namespace       = "geofield"
  image           = { repository = "registry.example/geofield-dagster", tag = "0.1.0" }
  service_account = "geofield-runner"
  postgres        = { host = "db.example", secret_name = "dagster-postgres" }
}

run "the_code_location_is_a_release_of_its_own" {
  assert {
    condition     = helm_release.code.chart == "dagster-user-deployments" && helm_release.code.version == helm_release.core.version
    error_message = "The code location is not apart from the core, or of another version."
  }
  assert {
    condition     = !yamldecode(helm_release.core.values[0])["dagster-user-deployments"].enableSubchart && yamldecode(helm_release.core.values[0])["dagster-user-deployments"].deployments == yamldecode(helm_release.code.values[0]).deployments
    error_message = "The core deploys the code location too, or looks for another one."
  }
}

run "no_password_passes_through" {
  assert {
    condition     = !yamldecode(helm_release.core.values[0]).generatePostgresqlPasswordSecret && !can(yamldecode(helm_release.core.values[0]).postgresql.postgresqlPassword) && !yamldecode(helm_release.core.values[0]).postgresql.enabled
    error_message = "A password would be in the state."
  }
}

run "latest_is_refused" {
  command = plan
  variables {
    image = { repository = "registry.example/geofield-dagster", tag = "latest" }
  }
  expect_failures = [var.image]
}
