mock_provider "helm" {}

variables {
  watched_namespace   = "geofield"
  grafana_secret_name = "grafana-admin"
}

run "the_projects_rules_and_board_are_in_it" {
  assert {
    condition     = contains([for rule in yamldecode(helm_release.prometheus.values[0]).additionalPrometheusRulesMap.geofield.groups[0].rules : rule.alert], "GeofieldBoxBehind")
    error_message = "The rules of docs/monitoring are not in use."
  }
  assert {
    condition     = jsondecode(yamldecode(helm_release.prometheus.values[0]).grafana.dashboards.geofield.geofield.json).uid == "geofield"
    error_message = "The board of docs/monitoring is not in use."
  }
  assert {
    condition     = length(helm_release.push_gateway) == 0 && output.push_gateway == null
    error_message = "A push gateway that nobody asked for."
  }
}

run "no_password_passes_through" {
  assert {
    condition     = !can(yamldecode(helm_release.prometheus.values[0]).grafana.adminPassword) && yamldecode(helm_release.prometheus.values[0]).grafana.admin.existingSecret == "grafana-admin"
    error_message = "Grafana's password would be in the state."
  }
}

run "a_push_gateway_for_a_cron_job" {
  variables {
    push_gateway = true
  }
  assert {
    condition     = output.push_gateway == "http://push-gateway.monitoring.svc:9091" && yamldecode(helm_release.push_gateway[0].values[0]).serviceMonitor.honorLabels
    error_message = "What is pushed would get the gateway's labels."
  }
}
