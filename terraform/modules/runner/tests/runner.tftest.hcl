mock_provider "kubernetes" {}

variables {
  image   = "registry.example/geofield:0.1.0"
  tenants = { north = { store = "s3://fields/north", workers = "0:20" } }
}

run "a_cron_job_that_never_overlaps" {
  assert {
    condition     = length(kubernetes_deployment_v1.runner) == 0 && one(kubernetes_cron_job_v1.runner).spec[0].concurrency_policy == "Forbid"
    error_message = "Two runs could be on at once."
  }
  assert {
    condition     = contains(one(kubernetes_cron_job_v1.runner).spec[0].job_template[0].spec[0].template[0].spec[0].container[0].command, "--once")
    error_message = "The job never ends."
  }
  assert {
    condition     = yamldecode(kubernetes_config_map_v1.settings.data["watch.yaml"]).tenants.north == { store = "s3://fields/north", cluster = "kube", workers = "0:20", until = "yesterday" }
    error_message = "The settings are not what was asked for: ${kubernetes_config_map_v1.settings.data["watch.yaml"]}"
  }
  assert {
    condition     = yamldecode(kubernetes_config_map_v1.settings.data["kube.yaml"]).service_account == "geofield-dask"
    error_message = "Workers run under the runner's account."
  }
}

run "pods_are_not_root_and_write_nothing_but_tmp" {
  assert {
    condition = alltrue([for pod in [one(kubernetes_cron_job_v1.runner).spec[0].job_template[0].spec[0].template[0].spec[0]] : alltrue([
      pod.security_context[0].run_as_non_root,
      pod.security_context[0].seccomp_profile[0].type == "RuntimeDefault",
      pod.container[0].security_context[0].read_only_root_filesystem,
      !pod.container[0].security_context[0].allow_privilege_escalation,
      pod.container[0].security_context[0].capabilities[0].drop == tolist(["ALL"]),
    ])])
    error_message = "The pod may do more than it needs."
  }
  assert {
    condition     = kubernetes_namespace_v1.geofield.metadata[0].labels["pod-security.kubernetes.io/enforce"] == "restricted"
    error_message = "The namespace takes any pod."
  }
}

run "the_role_holds_no_star_and_no_secrets" {
  assert {
    condition     = alltrue([for rule in kubernetes_role_v1.runner.rule : !contains(rule.verbs, "*") && !contains(rule.resources, "*") && !contains(rule.resources, "secrets")])
    error_message = "The role is too wide."
  }
}

run "or_a_process_that_stays" {
  variables {
    mode = "watch"
  }
  assert {
    condition     = length(kubernetes_cron_job_v1.runner) == 0 && one(kubernetes_deployment_v1.runner).spec[0].strategy[0].type == "Recreate" && one(kubernetes_deployment_v1.runner).spec[0].replicas == "1"
    error_message = "Two runners could be on at once."
  }
  assert {
    condition     = yamldecode(kubernetes_config_map_v1.settings.data["watch.yaml"]).tenants.north.schedule == "30 6 * * *"
    error_message = "The runner does not know when."
  }
  assert {
    condition     = one(kubernetes_deployment_v1.runner).spec[0].template[0].spec[0].container[0].security_context[0].read_only_root_filesystem
    error_message = "The root file system can be written."
  }
}

run "an_image_without_a_version_is_refused" {
  command = plan
  variables {
    image = "registry.example/geofield:latest"
  }
  expect_failures = [var.image]
}

run "a_secret_among_the_variables_is_refused" {
  command = plan
  variables {
    env = { AWS_SECRET_ACCESS_KEY = "x" }
  }
  expect_failures = [var.env]
}

run "a_store_on_a_disk_is_refused" {
  command = plan
  variables {
    tenants = { north = { store = "/data/north" } }
  }
  expect_failures = [var.tenants]
}
